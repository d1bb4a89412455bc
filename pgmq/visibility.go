package pgmq

import (
	"context"
	"math"
	"time"
)

// Visibility is an instant until which a message stays hidden; see VisibleIn and VisibleAt. The zero
// value is "now". It is an option of every way to send, and what SetVisibility sets.
type Visibility struct {
	in time.Duration
	at time.Time
}

// VisibleIn hides a message for d from the server's now on, rounded up to microseconds. d
// must not be negative; 0 makes it visible at once.
func VisibleIn(d time.Duration) Visibility { return Visibility{in: d} }

// VisibleAt hides a message until t. An instant that has passed makes it visible at once.
func VisibleAt(t time.Time) Visibility { return Visibility{at: t} }

func (v Visibility) applySend(o *sendOptions) { o.visibility = v }

func (v Visibility) validate() error {
	switch {
	case v.in < 0:
		return &ValueError{Name: "visible in", Value: v.in, Rule: "zero or more"}
	case v.at.UTC().Year() < 1 || v.at.UTC().Year() > 9999:
		return &ValueError{Name: "visible at", Value: v.at, Rule: "in the years 1 to 9999"}
	}
	return nil
}

// args are the two parameters of visibleAtSQL.
func (v Visibility) args() (at *time.Time, in int64) {
	if v.at.IsZero() {
		return nil, roundUp(v.in, time.Microsecond)
	}
	return &v.at, 0
}

// visibleAtSQL is the instant that a Visibility means, on the server's clock; its parameters $1 and
// $2 are those of args.
const visibleAtSQL = `coalesce($1::timestamptz, clock_timestamp() + $2::bigint * interval '1 microsecond')`

// SetVisibility hides the messages with these ids until v, counted from now and not from what was
// set before, and returns them as they are then (pgmq.set_vt). Ids that the queue does not have are
// missing from the result; no ids are no error. A PGMQ before 1.10 rounds up to whole seconds.
func (c *Client) SetVisibility(ctx context.Context, queue string, v Visibility, ids ...int64) ([]Message, error) {
	op := operation{"set_vt", queue}
	if err := firstError(ValidateQueueName(queue), v.validate()); err != nil {
		return nil, op.fail(err)
	}
	if len(ids) == 0 {
		return nil, nil
	}
	if c.db == nil {
		return nil, op.fail(ErrNilDB)
	}
	server, err := c.capabilities(ctx, op)
	if err != nil {
		return nil, c.wrap(ctx, op, err)
	}
	sql := setSecondsSQL
	if server.SetsInstants {
		sql = setInstantSQL
	}
	at, in := v.args()
	msgs, err := query(ctx, c, op, messages(), sql, at, in, queue, ids)
	sortByID(msgs)
	return msgs, c.wrap(ctx, op, err)
}

const (
	setInstantSQL = `
		select m.*
		from pgmq.set_vt($3::text, $4::bigint[], ` + visibleAtSQL + `) as m`

	// setSecondsSQL is for a PGMQ before 1.10, which knows seconds only, and before 1.8 one message at a
	// time. Being one statement it sets all of them or none.
	setSecondsSQL = `
		select m.*
		from (select distinct id from unnest($4::bigint[]) as u (id) order by id) as ids
		cross join lateral pgmq.set_vt(
			$3::text,
			ids.id,
			least(greatest(ceil(extract(epoch from ` + visibleAtSQL + ` - clock_timestamp())), 0), 2147483647)::integer
		) as m`
)

// wholeSeconds is d for a parameter of PGMQ that knows only seconds: rounded up, so that no wait
// becomes none.
func wholeSeconds(name string, d time.Duration) (int32, error) {
	if d < 0 {
		return 0, &ValueError{Name: name, Value: d, Rule: "zero or more"}
	}
	s := roundUp(d, time.Second)
	if s > math.MaxInt32 {
		return 0, &ValueError{Name: name, Value: d, Rule: "at most 2147483647 seconds"}
	}
	return int32(s), nil
}

// roundUp is d in units, of which no wait becomes none.
func roundUp(d, unit time.Duration) int64 {
	n := d / unit
	if d%unit > 0 {
		n++
	}
	return int64(n)
}

// firstError returns the first that is not nil.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
