package pgmq

import (
	"context"
	"encoding/json"
	"math"
	"time"
)

// ReadOption changes what Read returns.
type ReadOption interface{ applyRead(*readOptions) }

type readOptions struct {
	limit    int
	where    json.RawMessage
	function string
}

// Limit makes Read return up to n messages. The default is 1; n must not be negative.
func Limit(n int) ReadOption { return readLimit(n) }

// Where makes Read return only messages whose body contains this JSON, as jsonb's operator @> has it.
// It cannot be combined with Grouped.
func Where(contains json.RawMessage) ReadOption { return readWhere(contains) }

// GroupStrategy says how a grouped read spreads over the FIFO groups.
type GroupStrategy struct{ function string }

var (
	// Fill takes as many messages as possible from the oldest group, then from the next
	// (pgmq.read_grouped, PGMQ 1.9).
	Fill = GroupStrategy{"read_grouped"}
	// RoundRobin takes one message of each group in turn, and returns them so (pgmq.read_grouped_rr,
	// PGMQ 1.9).
	RoundRobin = GroupStrategy{"read_grouped_rr"}
	// Head takes at most one message of each group (pgmq.read_grouped_head, PGMQ 1.11.1).
	Head = GroupStrategy{"read_grouped_head"}
)

// Grouped makes Read respect FIFO groups: a message whose group (GroupHeader) has an earlier one that is
// hidden stays where it is.
func Grouped(s GroupStrategy) ReadOption { return readGrouped(s) }

type (
	readLimit   int
	readWhere   json.RawMessage
	readGrouped GroupStrategy
)

func (n readLimit) applyRead(o *readOptions)   { o.limit = int(n) }
func (w readWhere) applyRead(o *readOptions)   { o.where = json.RawMessage(w) }
func (g readGrouped) applyRead(o *readOptions) { o.function = g.function }

// Read returns the oldest visible messages of a queue, one unless Limit says otherwise, and hides them
// from others for vt, rounded up to whole seconds; with 0 they stay visible (pgmq.read). It does not
// wait: an empty result is no error. The messages come in the order of their ids, with RoundRobin in
// the order of the groups.
func (c *Client) Read(ctx context.Context, queue string, vt time.Duration, opts ...ReadOption) ([]Message, error) {
	op := operation{"read", queue}
	o := readOptions{limit: 1, function: "read"}
	for _, opt := range opts {
		opt.applyRead(&o)
	}
	seconds, err := wholeSeconds("vt", vt)
	if err = firstError(ValidateQueueName(queue), err, o.validate()); err != nil {
		return nil, op.fail(err)
	}

	// The function's name is one of this file's constants.
	sql := `
		select msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers
		from pgmq.` + o.function + `($1::text, $2::integer, $3::integer`
	args := []any{queue, seconds, o.limit}
	if o.where != nil {
		sql += `, $4::text::jsonb`
		args = append(args, string(o.where))
	}
	msgs, err := query(ctx, c, op, scanMessage, sql+`)`, args...)
	if o.function != RoundRobin.function {
		sortByID(msgs)
	}
	return msgs, c.wrap(ctx, op, err)
}

func (o readOptions) validate() error {
	switch {
	case o.limit < 0 || o.limit > math.MaxInt32:
		return &ValueError{Name: "limit", Value: o.limit, Rule: "from 0 to 2147483647"}
	case o.where != nil && !json.Valid(o.where):
		return &ValueError{Name: "condition", Value: abbreviate(o.where), Rule: "valid JSON"}
	case o.where != nil && o.function != "read":
		return &ValueError{Name: "condition", Value: abbreviate(o.where), Rule: "absent in a grouped read"}
	}
	return nil
}

// Pop deletes up to n of the oldest visible messages and returns them in the order of their ids
// (pgmq.pop). What the caller does not handle then is lost: Read and Delete do not lose it.
func (c *Client) Pop(ctx context.Context, queue string, n int) ([]Message, error) {
	op := operation{"pop", queue}
	if err := firstError(ValidateQueueName(queue), readOptions{limit: n}.validate()); err != nil {
		return nil, op.fail(err)
	}
	msgs, err := query(ctx, c, op, scanMessage, `
		select msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers
		from pgmq.pop($1::text, $2::integer)`, queue, n)
	sortByID(msgs)
	return msgs, c.wrap(ctx, op, err)
}

// Delete removes messages and returns the ids that were there (pgmq.delete). No ids are no error.
func (c *Client) Delete(ctx context.Context, queue string, ids ...int64) ([]int64, error) {
	return c.settle(ctx, operation{"delete", queue}, `select d from pgmq.delete($1::text, $2::bigint[]) as d`, ids)
}

// Archive moves messages into the queue's archive and returns the ids that were there (pgmq.archive).
// No ids are no error.
func (c *Client) Archive(ctx context.Context, queue string, ids ...int64) ([]int64, error) {
	return c.settle(ctx, operation{"archive", queue}, `select a from pgmq.archive($1::text, $2::bigint[]) as a`, ids)
}

func (c *Client) settle(ctx context.Context, op operation, sql string, ids []int64) ([]int64, error) {
	if err := ValidateQueueName(op.queue); err != nil {
		return nil, op.fail(err)
	}
	if len(ids) == 0 {
		return nil, nil
	}
	settled, err := query(ctx, c, op, scanValue[int64], sql, op.queue, ids)
	return settled, c.wrap(ctx, op, err)
}
