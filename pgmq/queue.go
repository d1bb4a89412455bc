package pgmq

import (
	"context"
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

type createOptions struct{ function string }

// Unlogged makes a queue that is faster and that a crash of the server empties
// (pgmq.create_unlogged).
func Unlogged() CreateOption { return createFunction("create_unlogged") }

type createFunction string

func (f createFunction) applyCreate(o *createOptions) { o.function = string(f) }

// CreateQueue creates a queue and its archive (pgmq.create). A queue that exists already stays as it
// is, without an error, also when many create it at once; one whose name differs by case only is
// ErrQueueNameCollision.
func (c *Client) CreateQueue(ctx context.Context, name string, opts ...CreateOption) error {
	op := operation{"create", name}
	o := createOptions{function: "create"}
	for _, opt := range opts {
		opt.applyCreate(&o)
	}
	if err := ValidateQueueName(name); err != nil {
		return op.fail(err)
	}
	// A queue that is there needs no rights to create one, and a name is only compared with others
	// before the first of them is made: PGMQ itself would give both one table.
	same, err := query(ctx, c, op, scanValue[string], `
		select queue_name::text from pgmq.meta where lower(queue_name) = lower($1::text)`, name)
	if err != nil {
		return c.wrap(ctx, op, err)
	}
	for _, existing := range same {
		if existing == name {
			return nil
		}
	}
	if len(same) > 0 {
		return op.fail(ErrQueueNameCollision)
	}
	// The function's name is one of this file's constants.
	return c.wrap(ctx, op, exec(ctx, c, op, `select pgmq.`+o.function+`($1::text)`, name))
}

// DropQueue drops a queue with its archive and bindings, and says whether there was one
// (pgmq.drop_queue).
func (c *Client) DropQueue(ctx context.Context, name string) (bool, error) {
	op := operation{"drop_queue", name}
	if err := ValidateQueueName(name); err != nil {
		return false, op.fail(err)
	}
	dropped, err := queryOne(ctx, c, op, scanValue[bool], `select pgmq.drop_queue($1::text)`, name)
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

// table is the identifier of a queue's table, quoted; PGMQ folds names to lower case.
func table(queue string) string {
	return pgx.Identifier{"pgmq", "q_" + strings.ToLower(queue)}.Sanitize()
}

// archiveTable is table for the archive.
func archiveTable(queue string) string {
	return pgx.Identifier{"pgmq", "a_" + strings.ToLower(queue)}.Sanitize()
}
