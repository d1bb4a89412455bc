package pgmq

import (
	"context"
	"time"
)

// Metrics is what PGMQ says of a queue.
type Metrics struct {
	Queue string
	// Length counts all messages, hidden ones too.
	Length int64
	// Visible counts those that a read would get now. Nil: the server's PGMQ does not say.
	Visible *int64
	// DefaultPartition counts messages that no partition was made for in time: more than 0 says that
	// pg_partman's maintenance does not run. Nil for a queue that is not partitioned, before PGMQ 1.13,
	// and from EstimateMetrics.
	DefaultPartition *int64
	// Newest and Oldest are ages in whole seconds, nil in an empty queue.
	Newest, Oldest *time.Duration
	// Total is how many were ever sent.
	Total int64
	// ScrapedAt is when the server counted.
	ScrapedAt time.Time
}

// Metrics counts one queue (pgmq.metrics). It reads the whole table; EstimateMetrics does not.
func (c *Client) Metrics(ctx context.Context, queue string) (Metrics, error) {
	return c.metrics(ctx, queue, `select m.* from pgmq.metrics($1::text) as m`)
}

// MetricsAll is Metrics for every queue, in the order of their names (pgmq.metrics_all).
func (c *Client) MetricsAll(ctx context.Context) ([]Metrics, error) {
	op := operation{name: "metrics"}
	all, err := query(ctx, c, op, metrics(), `select m.* from pgmq.metrics_all() as m order by m.queue_name`)
	return all, c.wrap(ctx, op, err)
}

// EstimateMetrics is Metrics at a price that does not grow with the queue. Below 10,000 messages Length
// and Visible are exact, beyond that they are estimates, and Visible is never less than 10,000 then. Only
// the schema that Install brings along has it; elsewhere it is ErrUnsupported.
func (c *Client) EstimateMetrics(ctx context.Context, queue string) (Metrics, error) {
	return c.metrics(ctx, queue, `select m.* from pgmq._metrics_estimate($1::text) as m`)
}

func (c *Client) metrics(ctx context.Context, queue, sql string) (Metrics, error) {
	op := operation{"metrics", queue}
	if err := ValidateQueueName(queue); err != nil {
		return Metrics{}, op.fail(err)
	}
	m, err := queryOne(ctx, c, op, metrics(), sql, queue)
	return m, c.wrap(ctx, op, err)
}

// metrics returns a scan of pgmq.metrics_result in whatever version.
func metrics() func(row) (Metrics, error) {
	var (
		m              Metrics
		newest, oldest *int64
	)
	scan := byName(func(column string) any {
		switch column {
		case "queue_name":
			return &m.Queue
		case "queue_length":
			return &m.Length
		case "queue_visible_length":
			return &m.Visible
		case "default_partition_length":
			return &m.DefaultPartition
		case "newest_msg_age_sec":
			return &newest
		case "oldest_msg_age_sec":
			return &oldest
		case "total_messages":
			return &m.Total
		case "scrape_time":
			return &m.ScrapedAt
		}
		return nil
	})
	return func(r row) (Metrics, error) {
		err := scan(r)
		m.Newest, m.Oldest = seconds(newest), seconds(oldest)
		return m, err
	}
}

func seconds(n *int64) *time.Duration {
	if n == nil {
		return nil
	}
	d := time.Duration(*n) * time.Second
	return &d
}
