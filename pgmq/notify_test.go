package pgmq_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func TestNotify(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	c := pgmq.New(d.Pool)
	newQueue(t, c, "MixedCase")
	newQueue(t, c, "other")
	throttles := func(want ...pgmq.NotifyThrottle) {
		t.Helper()
		got, err := c.NotifyThrottles(t.Context())
		if err != nil || len(got) != len(want) {
			t.Fatalf("throttles %v, %v, want %v", got, err, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("throttle %+v, want %+v", got[i], want[i])
			}
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	throttles()

	do(c.EnableNotify(t.Context(), "other", 0))
	do(c.EnableNotify(t.Context(), "MixedCase", 1500*time.Microsecond))
	throttles(pgmq.NotifyThrottle{Queue: "MixedCase", Throttle: 2 * time.Millisecond}, pgmq.NotifyThrottle{Queue: "other"})
	do(c.EnableNotify(t.Context(), "MixedCase", time.Hour)) // again
	do(c.UpdateNotify(t.Context(), "other", math.MaxInt32*time.Millisecond))
	throttles(
		pgmq.NotifyThrottle{Queue: "MixedCase", Throttle: time.Hour},
		pgmq.NotifyThrottle{Queue: "other", Throttle: math.MaxInt32 * time.Millisecond},
	)

	listener, err := c.NewListener(t.Context(), nil)
	do(err)
	defer listener.Close()
	woken, err := listener.Listen(t.Context(), "MixedCase")
	do(err)
	await(t, woken, "the beginning of listening")
	_, err = c.Send(t.Context(), "MixedCase", body(`1`))
	do(err)
	await(t, woken, "a message")
	got, err := c.NotifyThrottles(t.Context())
	if err != nil || time.Since(got[0].LastNotifiedAt).Abs() > time.Minute || !got[1].LastNotifiedAt.IsZero() {
		t.Errorf("notified last: %v, %v", got, err)
	}

	do(c.DisableNotify(t.Context(), "MixedCase"))
	do(c.DisableNotify(t.Context(), "MixedCase")) // again
	throttles(pgmq.NotifyThrottle{Queue: "other", Throttle: math.MaxInt32 * time.Millisecond})

	err = c.UpdateNotify(t.Context(), "MixedCase", time.Second)
	if !errors.Is(err, pgmq.ErrNotifyDisabled) || errors.Is(err, pgmq.ErrQueueNotFound) {
		t.Errorf("update where disabled: %v", err)
	}
}

func TestNotifyRefuses(t *testing.T) {
	t.Parallel()
	c := pgmq.New(nil)
	for throttle, rule := range map[time.Duration]string{
		-1:                                 "zero or more",
		math.MaxInt32*time.Millisecond + 1: "at most 2147483647 milliseconds",
		math.MaxInt64:                      "at most 2147483647 milliseconds",
	} {
		want := pgmq.ValueError{Name: "throttle", Value: throttle, Rule: rule}
		requireValueError(t, "EnableNotify", c.EnableNotify(t.Context(), "q", throttle), want)
		requireValueError(t, "UpdateNotify", c.UpdateNotify(t.Context(), "q", throttle), want)
	}
}
