package pgmq

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// ErrNotifyDisabled says that the notifications of a queue are not enabled; see Client.EnableNotify.
var ErrNotifyDisabled = errors.New("notifications are not enabled")

// NotifyThrottle says how often a queue notifies.
type NotifyThrottle struct {
	Queue string
	// Throttle is the shortest time between two notifications; 0: each sending statement notifies.
	Throttle time.Duration
	// LastNotifiedAt is when the queue notified last, as far as it was recorded. Zero: never.
	LastNotifiedAt time.Time
}

// EnableNotify makes a queue notify its listeners (see Listener and Channel) when something is sent to
// it, at most once per throttle, which is rounded up to milliseconds; with 0, always. For a queue that
// notifies already it changes the throttle (pgmq.enable_notify_insert, PGMQ 1.8; without a throttle 1.7).
func (c *Client) EnableNotify(ctx context.Context, queue string, throttle time.Duration) error {
	op := operation{"enable_notify_insert", queue}
	millis, err := throttleMillis(throttle)
	if err = firstError(ValidateQueueName(queue), err); err != nil {
		return op.fail(err)
	}
	if throttle == 0 {
		// PGMQ 1.7 has no throttle, which is what 0 asks for.
		server, err := c.capabilities(ctx, op)
		if err != nil {
			return c.wrap(ctx, op, err)
		}
		if !server.ThrottlesNotify {
			return c.onQueue(ctx, op, queue, `pgmq.enable_notify_insert(m.queue_name::text)`)
		}
	}
	return c.onQueue(ctx, op, queue, `pgmq.enable_notify_insert(m.queue_name::text, $2::integer)`, millis)
}

// UpdateNotify changes the throttle of a queue that notifies; one that does not is ErrNotifyDisabled
// (pgmq.update_notify_insert, PGMQ 1.11).
func (c *Client) UpdateNotify(ctx context.Context, queue string, throttle time.Duration) error {
	op := operation{"update_notify_insert", queue}
	millis, err := throttleMillis(throttle)
	if err = firstError(ValidateQueueName(queue), err); err != nil {
		return op.fail(err)
	}
	err = c.onQueue(ctx, op, queue, `pgmq.update_notify_insert(m.queue_name::text, $2::integer)`, millis)
	if stateOf(err) == stateRaised {
		// The queue is there and the throttle is valid, so what is left to complain of is this.
		return op.fail(fmt.Errorf("%w: %w", ErrNotifyDisabled, errors.Unwrap(err)))
	}
	return err
}

// DisableNotify ends the notifications of a queue. One that does not notify stays as it is
// (pgmq.disable_notify_insert, PGMQ 1.7).
func (c *Client) DisableNotify(ctx context.Context, queue string) error {
	op := operation{"disable_notify_insert", queue}
	if err := ValidateQueueName(queue); err != nil {
		return op.fail(err)
	}
	return c.onQueue(ctx, op, queue, `pgmq.disable_notify_insert(m.queue_name::text)`)
}

// NotifyThrottles returns the queues that notify, in the order of their names
// (pgmq.list_notify_insert_throttles, PGMQ 1.11).
func (c *Client) NotifyThrottles(ctx context.Context) ([]NotifyThrottle, error) {
	op := operation{name: "list_notify_insert_throttles"}
	throttles, err := query(ctx, c, op, scanThrottle, `
		select t.queue_name::text, t.throttle_interval_ms, t.last_notified_at
		from pgmq.list_notify_insert_throttles() as t
		order by t.queue_name`)
	return throttles, c.wrap(ctx, op, err)
}

func scanThrottle(r row) (t NotifyThrottle, err error) {
	var millis int64
	err = r.Scan(&t.Queue, &millis, &t.LastNotifiedAt)
	t.Throttle = time.Duration(millis) * time.Millisecond
	if t.LastNotifiedAt.Unix() == 0 { // as PGMQ says never
		t.LastNotifiedAt = time.Time{}
	}
	return t, err
}

func throttleMillis(throttle time.Duration) (int32, error) {
	millis := roundUp(throttle, time.Millisecond)
	switch {
	case throttle < 0:
		return 0, &ValueError{Name: "throttle", Value: throttle, Rule: "zero or more"}
	case millis > math.MaxInt32:
		return 0, &ValueError{Name: "throttle", Value: throttle, Rule: "at most 2147483647 milliseconds"}
	}
	return int32(millis), nil
}
