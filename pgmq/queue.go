package pgmq

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Queue is what pgmq.list_queues says of a queue.
type Queue struct {
	Name        string
	Partitioned bool
	Unlogged    bool
	CreatedAt   time.Time
}

// CreateOption changes what kind of queue CreateQueue makes.
type CreateOption interface{ applyCreate(*createOptions) }

type createOptions struct {
	unlogged   bool
	partitions *partitions
}

// Unlogged makes a queue that is faster and that a crash of the server empties
// (pgmq.create_unlogged). It cannot be combined with Partitioned.
func Unlogged() CreateOption { return unlogged{} }

type unlogged struct{}

func (unlogged) applyCreate(o *createOptions) { o.unlogged = true }

func (o createOptions) validate(name string) error {
	switch {
	case o.partitions == nil:
		return ValidateQueueName(name)
	case o.unlogged:
		return &ValueError{Name: "kind of queue", Value: "unlogged and partitioned", Rule: "one of both"}
	}
	return o.partitions.validate(name)
}

func (o createOptions) statement(name string) (sql string, args []any) {
	switch {
	case o.partitions != nil:
		return o.partitions.statement(name)
	case o.unlogged:
		return `select pgmq.create_unlogged($1::text)`, []any{name}
	}
	return `select pgmq.create($1::text)`, []any{name}
}

// CreateQueue creates a queue and its archive (pgmq.create). A queue that exists already stays as it
// is, without an error, also when many create it at once; one whose name differs by case only is
// ErrQueueNameCollision.
func (c *Client) CreateQueue(ctx context.Context, name string, opts ...CreateOption) error {
	op := operation{"create", name}
	var o createOptions
	for _, opt := range opts {
		opt.applyCreate(&o)
	}
	if err := o.validate(name); err != nil {
		return op.fail(err)
	}
	// A queue that is there needs no rights to create one.
	if exists, err := c.compareNames(ctx, op); err != nil || exists {
		return err
	}
	return c.InTx(ctx, func(tx *Client) error {
		// PGMQ would give two names one table. Of those who create one at the same time, each looks after
		// the one before has committed.
		err := exec(ctx, tx, op, `
			select pg_advisory_xact_lock(hashtextextended('pgmq.create.' || lower($1::text), 0))`, name)
		if err != nil {
			return tx.wrap(ctx, op, err)
		}
		if exists, err := tx.compareNames(ctx, op); err != nil || exists {
			return err
		}
		sql, args := o.statement(name)
		return tx.wrap(ctx, op, exec(ctx, tx, op, sql, args...))
	})
}

// compareNames says whether the queue that is to be created exists, and refuses it if one exists whose
// name differs by case only.
func (c *Client) compareNames(ctx context.Context, op operation) (exists bool, err error) {
	same, err := query(ctx, c, op, scanValue[string], `
		select queue_name::text from pgmq.meta where lower(queue_name) = lower($1::text)`, op.queue)
	switch {
	case err != nil:
		return false, c.wrap(ctx, op, err)
	case slices.Contains(same, op.queue):
		return true, nil
	case len(same) > 0:
		return false, op.fail(ErrQueueNameCollision)
	}
	return false, nil
}

// DropQueue drops a queue with its archive and bindings, and says whether there was one
// (pgmq.drop_queue).
func (c *Client) DropQueue(ctx context.Context, name string) (bool, error) {
	op := operation{"drop_queue", name}
	if err := ValidateQueueName(name); err != nil {
		return false, op.fail(err)
	}
	// Before 1.6 PGMQ fails where there is none.
	dropped, err := queryOne(ctx, c, op, scanValue[bool], `
		select case
			when exists (select from pgmq.meta as m where m.queue_name = $1::text) then pgmq.drop_queue($1::text)
			else false
		end`, name)
	return dropped, c.wrap(ctx, op, err)
}

// Purge deletes all messages of a queue, hidden ones too, and returns how many there were
// (pgmq.purge_queue).
func (c *Client) Purge(ctx context.Context, name string) (int64, error) {
	op := operation{"purge", name}
	if err := ValidateQueueName(name); err != nil {
		return 0, op.fail(err)
	}
	n, err := queryOne(ctx, c, op, scanValue[int64], `select pgmq.purge_queue($1::text)`, name)
	return n, c.wrap(ctx, op, err)
}

// DetachArchive lets the archive outlive a drop of the extension, in PGMQ 1.5. Later its tables do so
// anyway, and the server merely warns (pgmq.detach_archive).
func (c *Client) DetachArchive(ctx context.Context, name string) error {
	op := operation{"detach_archive", name}
	if err := ValidateQueueName(name); err != nil {
		return op.fail(err)
	}
	return c.onQueue(ctx, op, name, `pgmq.detach_archive(m.queue_name::text)`)
}

// Queues returns all queues in the order of their names (pgmq.list_queues).
func (c *Client) Queues(ctx context.Context) ([]Queue, error) {
	op := operation{name: "list_queues"}
	queues, err := query(ctx, c, op, scanQueue, `
		select queue_name::text, is_partitioned, is_unlogged, created_at
		from pgmq.list_queues()
		order by queue_name`)
	return queues, c.wrap(ctx, op, err)
}

func scanQueue(r row) (q Queue, err error) {
	err = r.Scan(&q.Name, &q.Partitioned, &q.Unlogged, &q.CreatedAt)
	return q, err
}

// onQueue calls functions that do not themselves, or not all versions of them, mind a queue that is
// missing. The queue is $1 and, in the call, m.queue_name.
func (c *Client) onQueue(ctx context.Context, op operation, queue, call string, args ...any) error {
	called, err := query(ctx, c, op, scanNothing, `
		select `+call+`
		from pgmq.meta as m
		where m.queue_name = $1::text`, append([]any{queue}, args...)...)
	if err == nil && len(called) == 0 {
		err = fmt.Errorf("%w: %q", ErrQueueNotFound, queue)
	}
	return c.wrap(ctx, op, err)
}

// requireQueues returns ErrQueueNotFound unless there are all of these queues, whose names it checks, too.
func (c *Client) requireQueues(ctx context.Context, op operation, queues []string) error {
	for _, queue := range queues {
		if err := ValidateQueueName(queue); err != nil {
			return op.fail(err)
		}
	}
	missing, err := query(ctx, c, op, scanValue[string], `
		select q.name
		from unnest($1::text[]) as q (name)
		where not exists (select from pgmq.meta as m where m.queue_name = q.name)
		order by q.name`, queues)
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%w: %q", ErrQueueNotFound, missing)
	}
	return c.wrap(ctx, op, err)
}

// table is the identifier of a queue's table, quoted; PGMQ folds names to lower case.
func table(queue string) string {
	return pgx.Identifier{"pgmq", "q_" + strings.ToLower(queue)}.Sanitize()
}

// archiveTable is table for the archive.
func archiveTable(queue string) string {
	return pgx.Identifier{"pgmq", "a_" + strings.ToLower(queue)}.Sanitize()
}
