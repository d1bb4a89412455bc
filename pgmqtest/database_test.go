package pgmqtest_test

import (
	"testing"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func TestNew(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t)
	if err := db.Pool.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
}
