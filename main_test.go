package watermillpgmq_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain is also the main of the applications that the tests start and kill. No goroutine may be left
// when all tests are over, whoever started it.
func TestMain(m *testing.M) {
	if name := os.Getenv(applicationVariable); name != "" {
		os.Exit(runApplication(name))
	}
	goleak.VerifyTestMain(m,
		// Watermill's own TestReconnect collects what it publishes from a channel that it never closes.
		goleak.IgnoreTopFunction("github.com/ThreeDotsLabs/watermill/pubsub/tests.TestReconnect.func2"))
}
