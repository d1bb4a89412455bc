package pgmq

import (
	"context"
	"time"
)

// Metrics is what pgmq.metrics says of a queue.
type Metrics struct {
	Queue string
	// Length counts all messages, Visible those that a read would get now.
	Length, Visible int64
	// Newest and Oldest are ages in whole seconds, nil in an empty queue.
	Newest, Oldest *time.Duration
	// Total is how many were ever sent.
	Total int64
	// ScrapedAt is when the server counted.
	ScrapedAt time.Time
}

// Metrics counts one queue (pgmq.metrics). It reads the whole table.
func (c *Client) Metrics(ctx context.Context, queue string) (Metrics, error) {
	op := operation{"metrics", queue}
	if err := ValidateQueueName(queue); err != nil {
		return Metrics{}, op.fail(err)
	}
	m, err := queryOne(ctx, c, op, scanMetrics, `select `+metricsColumns+` from pgmq.metrics($1::text)`, queue)
	return m, c.wrap(ctx, op, err)
}

// MetricsAll is Metrics for every queue, in the order of their names (pgmq.metrics_all).
func (c *Client) MetricsAll(ctx context.Context) ([]Metrics, error) {
	op := operation{name: "metrics"}
	all, err := query(ctx, c, op, scanMetrics, `select `+metricsColumns+` from pgmq.metrics_all() order by queue_name`)
	return all, c.wrap(ctx, op, err)
}

const metricsColumns = `queue_name, queue_length, queue_visible_length, newest_msg_age_sec, oldest_msg_age_sec,
	total_messages, scrape_time`

func scanMetrics(r row) (Metrics, error) {
	var (
		m              Metrics
		newest, oldest *int64
	)
	err := r.Scan(&m.Queue, &m.Length, &m.Visible, &newest, &oldest, &m.Total, &m.ScrapedAt)
	m.Newest, m.Oldest = seconds(newest), seconds(oldest)
	return m, err
}

func seconds(n *int64) *time.Duration {
	if n == nil {
		return nil
	}
	d := time.Duration(*n) * time.Second
	return &d
}
