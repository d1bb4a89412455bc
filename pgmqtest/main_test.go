package pgmqtest_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain is also the main of the processes that the tests start and kill.
func TestMain(m *testing.M) {
	if role := os.Getenv("PGMQTEST_CHILD"); role != "" {
		os.Exit(child(role))
	}
	goleak.VerifyTestMain(m)
}
