package pgmq

import (
	"context"
	"encoding/json"
	"math"
	"strconv"
	"time"
)

// ReadOption changes what Read returns: Limit, Where, Grouped; or whether it waits: Poll, WokenBy,
// ServerPoll.
type ReadOption interface{ applyRead(*readOptions) }

type readOptions struct {
	limit    int
	where    json.RawMessage
	function string
	poll     poll
}

// Limit makes Read return up to n messages. The default is 1; n must not be negative.
func Limit(n int) ReadOption { return readLimit(n) }

// Where makes Read return only messages whose body contains this JSON, as jsonb's operator @> has it.
// It cannot be combined with Grouped.
func Where(contains json.RawMessage) ReadOption { return readWhere(contains) }

type (
	readLimit int
	readWhere json.RawMessage
)

func (n readLimit) applyRead(o *readOptions) { o.limit = int(n) }
func (w readWhere) applyRead(o *readOptions) { o.where = json.RawMessage(w) }

// Read returns the oldest visible messages of a queue, one unless Limit says otherwise, and hides them
// from others for vt, rounded up to whole seconds; with 0 they stay visible (pgmq.read). It does not
// wait, unless told to: an empty result is no error. The messages come in the order of their ids, with
// RoundRobin in the order of the groups.
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
	sql, args := o.statement(queue, seconds)
	msgs, err := o.poll.until(ctx, queue, func() ([]Message, error) {
		return query(ctx, c, op, messages(), sql, args...)
	})
	if o.function != RoundRobin.function {
		sortByID(msgs)
	}
	return msgs, c.wrap(ctx, op, err)
}

func (o readOptions) validate() error {
	switch {
	case o.limit < 0 || o.limit > math.MaxInt32:
		return &ValueError{Name: "limit", Value: o.limit, Rule: "from 0 to 2147483647"}
	case o.where != nil && !isJSON(o.where):
		return &ValueError{Name: "condition", Value: abbreviate(o.where), Rule: "valid JSON"}
	case o.where != nil && o.function != "read":
		return &ValueError{Name: "condition", Value: abbreviate(o.where), Rule: "absent in a grouped read"}
	}
	return o.poll.validate()
}

// statement calls the function, whose name is one of this package's constants.
func (o readOptions) statement(queue string, vt int32) (sql string, args []any) {
	sql = `select m.* from pgmq.` + o.function
	parameters := `($1::text, $2::integer, $3::integer`
	args = []any{queue, vt, o.limit}
	if o.poll.onServer() {
		sql += `_with_poll`
		parameters += `, $4::integer, $5::integer`
		args = append(args, roundUp(o.poll.wait, time.Second), roundUp(o.poll.every, time.Millisecond))
	}
	if o.where != nil {
		args = append(args, string(o.where))
		parameters += `, $` + strconv.Itoa(len(args)) + `::text::jsonb`
	}
	return sql + parameters + `) as m`, args
}

// Pop deletes up to n of the oldest visible messages and returns them in the order of their ids
// (pgmq.pop). More than one at a time need PGMQ 1.7. What the caller does not handle then is lost: Read
// and Delete do not lose it.
func (c *Client) Pop(ctx context.Context, queue string, n int) ([]Message, error) {
	op := operation{"pop", queue}
	if err := firstError(ValidateQueueName(queue), readOptions{limit: n}.validate()); err != nil {
		return nil, op.fail(err)
	}
	sql, args := `select m.* from pgmq.pop($1::text) as m`, []any{queue} // one, in every version
	if n != 1 {
		sql, args = `select m.* from pgmq.pop($1::text, $2::integer) as m`, []any{queue, n}
	}
	msgs, err := query(ctx, c, op, messages(), sql, args...)
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
