package pgmq_test

import (
	"errors"
	"testing"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// Whatever is done to a queue that is not there, the error says so.
func TestMissingQueue(t *testing.T) {
	t.Parallel()
	c := pgmq.New(pgmqtest.New(t).Pool)
	for _, name := range names(onQueueCalls) {
		err := onQueueCalls[name](t.Context(), c, "nope")
		var operation *pgmq.Error
		if !errors.Is(err, pgmq.ErrQueueNotFound) || !errors.As(err, &operation) {
			t.Errorf("%s: got %v, want ErrQueueNotFound", name, err)
		}
	}
	if bindings, err := c.Bindings(t.Context(), "nope"); len(bindings) > 0 || err != nil {
		t.Errorf("Bindings of a missing queue: %v, %v", bindings, err)
	}
	if dropped, err := c.DropQueue(t.Context(), "nope"); dropped || err != nil {
		t.Errorf("DropQueue of a missing queue: %v, %v", dropped, err)
	}
}

// A name that no queue can have is refused before anything is sent: there is no server here.
func TestInvalidQueueName(t *testing.T) {
	t.Parallel()
	c := pgmq.New(nil)
	for _, name := range names(onQueueCalls) {
		if err := onQueueCalls[name](t.Context(), c, "no;name"); !errors.Is(err, pgmq.ErrInvalidQueueName) {
			t.Errorf("%s: got %v, want ErrInvalidQueueName", name, err)
		}
		if err := onQueueCalls[name](t.Context(), c, "name"); !errors.Is(err, pgmq.ErrNilDB) {
			t.Errorf("%s without a handle: got %v, want ErrNilDB", name, err)
		}
	}
}
