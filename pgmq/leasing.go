package pgmq

import (
	"context"
	"fmt"
	"time"
)

// leasing holds the statements by which a reader takes messages of one queue and settles them. They
// work on the queue's table, whose shape is part of PGMQ's contract.
//
// A lease is fenced by last_read_at: taking a message moves it strictly forward, so no two leases of
// one message ever share a value, whatever the clock does and however often its read count is given
// back; extending a lease leaves it alone, so a lease whose extension was not answered is still known
// by it; settling moves it on, so that a settlement which is repeated because its answer was lost, or
// which comes from somebody who lost the lease, finds nothing.
//
// All of them are planned at each execution: a plan made while the table
// was nearly empty would scan all of it when it is large.
type leasing struct {
	client  *Client
	queue   string
	vt      time.Duration
	archive bool
}

// probe runs the statements without effect, so that a missing queue or right is an error before the first
// message is taken.
func (l *leasing) probe(ctx context.Context) error {
	if _, err := l.take(ctx, 0); err != nil {
		return err
	}
	_, err := l.ack(ctx, nil)
	return err
}

// take leases up to n of the oldest visible messages and returns them in the order of their ids.
// Messages that somebody else is taking at the same time are passed over, not waited for.
func (l *leasing) take(ctx context.Context, n int) ([]*Lease, error) {
	leases, err := planned(ctx, l.client, operation{"read", l.queue}, scanLease, fmt.Sprintf(`
		with oldest as materialized (
			select msg_id
			from %[1]s
			where vt <= clock_timestamp()
			order by msg_id
			limit $1::bigint
			for update skip locked
		)
		update %[1]s as q
		set vt = clock_timestamp() + $2::bigint * interval '1 microsecond',
			read_ct = q.read_ct + 1,
			last_read_at = greatest(clock_timestamp(), q.last_read_at + interval '1 microsecond')
		from oldest
		where q.msg_id = oldest.msg_id
		returning q.msg_id, q.read_ct, q.enqueued_at, q.last_read_at, q.vt, q.message, q.headers`, table(l.queue)),
		n, l.vt.Microseconds())
	sortLeases(leases)
	return leases, l.client.explainLeasing(ctx, operation{"read", l.queue}, err)
}

func scanLease(r row) (*Lease, error) {
	msg, err := scanMessage(r)
	return &Lease{Message: msg}, err
}

// extend lets leases last for another visibility timeout from now on. It returns the ids of those
// that are still ours.
func (l *leasing) extend(ctx context.Context, leases []*Lease) ([]int64, error) {
	return l.change(ctx, operation{"set_vt", l.queue}, fmt.Sprintf(`
		update %s as q
		set vt = clock_timestamp() + $3::bigint * interval '1 microsecond'
		from unnest($1::bigint[], $2::timestamptz[]) as held (msg_id, last_read_at)
		where q.msg_id = held.msg_id and q.last_read_at = held.last_read_at
		returning q.msg_id`, table(l.queue)), leases, l.vt.Microseconds())
}

// ack deletes or archives, and returns the ids of what it found.
func (l *leasing) ack(ctx context.Context, leases []*Lease) ([]int64, error) {
	if l.archive {
		return l.change(ctx, operation{"archive", l.queue}, fmt.Sprintf(`
			with done as (
				delete from %s as q
				using unnest($1::bigint[], $2::timestamptz[]) as held (msg_id, last_read_at)
				where q.msg_id = held.msg_id and q.last_read_at = held.last_read_at
				returning q.msg_id, q.read_ct, q.enqueued_at, q.last_read_at, q.vt, q.message, q.headers
			)
			insert into %s (msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers)
			select msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers
			from done
			returning msg_id`, table(l.queue), archiveTable(l.queue)), leases)
	}
	return l.change(ctx, operation{"delete", l.queue}, fmt.Sprintf(`
		delete from %s as q
		using unnest($1::bigint[], $2::timestamptz[]) as held (msg_id, last_read_at)
		where q.msg_id = held.msg_id and q.last_read_at = held.last_read_at
		returning q.msg_id`, table(l.queue)), leases)
}

// nack makes messages visible again, each after its delay, and returns the ids of what it found.
func (l *leasing) nack(ctx context.Context, leases []*Lease) ([]int64, error) {
	delays := make([]int64, len(leases))
	for i, lease := range leases {
		delays[i] = lease.delay.Microseconds()
	}
	return l.change(ctx, operation{"set_vt", l.queue}, fmt.Sprintf(`
		update %s as q
		set vt = clock_timestamp() + held.delay * interval '1 microsecond',
			last_read_at = q.last_read_at + interval '1 microsecond'
		from unnest($1::bigint[], $2::timestamptz[], $3::bigint[]) as held (msg_id, last_read_at, delay)
		where q.msg_id = held.msg_id and q.last_read_at = held.last_read_at
		returning q.msg_id`, table(l.queue)), leases, delays)
}

// release gives messages back as if they had not been read, and returns the ids of what it found.
func (l *leasing) release(ctx context.Context, leases []*Lease) ([]int64, error) {
	return l.change(ctx, operation{"set_vt", l.queue}, fmt.Sprintf(`
		update %s as q
		set vt = clock_timestamp(),
			read_ct = greatest(q.read_ct - 1, 0),
			last_read_at = q.last_read_at + interval '1 microsecond'
		from unnest($1::bigint[], $2::timestamptz[]) as held (msg_id, last_read_at)
		where q.msg_id = held.msg_id and q.last_read_at = held.last_read_at
		returning q.msg_id`, table(l.queue)), leases)
}

func (l *leasing) change(ctx context.Context, op operation, sql string, leases []*Lease, more ...any) ([]int64, error) {
	ids := make([]int64, len(leases))
	fences := make([]time.Time, len(leases))
	for i, lease := range leases {
		ids[i], fences[i] = lease.ID, lease.LastReadAt
	}
	args := append([]any{ids, fences}, more...)
	changed, err := planned(ctx, l.client, op, scanValue[int64], sql, args...)
	return changed, l.client.explainLeasing(ctx, op, err)
}

// explainLeasing is wrap for statements that need the column last_read_at.
func (c *Client) explainLeasing(ctx context.Context, op operation, err error) error {
	if stateOf(err) == stateUndefinedColumn {
		err = &UnsupportedError{Function: "a Reader", Since: "PGMQ 1.10", Err: err}
	}
	return c.wrap(ctx, op, err)
}

const stateUndefinedColumn = "42703"
