package pgmq

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Shipment is a part of what SendMany sends: messages with one destination and one visibility.
type Shipment struct {
	// Queue or RoutingKey says where the messages go; exactly one of them is set.
	Queue, RoutingKey string
	// Fallback is the queue that gets the messages when no queue is bound for RoutingKey. Default:
	// none gets them.
	Fallback   string
	Messages   []Outgoing
	Visibility Visibility
	// Notify tells the listeners of the queues (see Channel) when the transaction commits. Several
	// in one transaction are one.
	Notify bool
}

// SendMany sends all shipments or none, in their order, in one round trip, and returns for each of
// them the queues that got its messages: nothing where a routing key leads nowhere (pgmq.send_batch,
// pgmq.send_batch_topic). On a handle that is not in a transaction it is a transaction of its own.
func (c *Client) SendMany(ctx context.Context, shipments []Shipment) ([][]string, error) {
	if len(shipments) == 0 {
		return nil, nil
	}
	op := shipments[0].operation()
	batch := &pgx.Batch{}
	for i := range shipments {
		if err := shipments[i].validate(); err != nil {
			return nil, shipments[i].operation().fail(err)
		}
		shipments[i].queue(batch)
	}
	if c.db == nil {
		return nil, op.fail(ErrNilDB)
	}
	db, ok := c.db.(interface {
		SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
	})
	if !ok {
		return nil, op.fail(fmt.Errorf("%w on a %T: it needs a handle with SendBatch", ErrUnsupported, c.db))
	}
	queues, at, err := collect(db.SendBatch(ctx, batch), len(shipments))
	return queues, c.wrap(ctx, shipments[at].operation(), err)
}

// collect reads the results of n statements, and says at which of them an error came up.
func collect(results pgx.BatchResults, n int) (queues [][]string, at int, err error) {
	queues = make([][]string, n)
	for at = range queues {
		rows, queryErr := results.Query()
		if queryErr == nil {
			queues[at], queryErr = pgx.CollectRows(rows, scanFirst[string])
		}
		if err = queryErr; err != nil {
			break
		}
	}
	// The transaction ends here, so that this error counts like the statements' own.
	if closeErr := results.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, at, err
	}
	return queues, at, nil
}

// scanFirst reads the first column of a row and leaves the others.
func scanFirst[T any](row pgx.CollectableRow) (T, error) {
	var first T
	dest := make([]any, len(row.FieldDescriptions()))
	dest[0] = &first
	err := row.Scan(dest...)
	return first, err
}

func (s *Shipment) operation() operation {
	if s.Queue != "" {
		return operation{"send", s.Queue}
	}
	return operation{"send_topic", s.RoutingKey}
}

func (s *Shipment) validate() error {
	var err error
	switch {
	case (s.Queue == "") == (s.RoutingKey == ""):
		err = &ValueError{Name: "destination", Value: fmt.Sprintf("queue %q, routing key %q", s.Queue, s.RoutingKey), Rule: "exactly one of both"}
	case s.Queue != "":
		err = ValidateQueueName(s.Queue)
	default:
		err = ValidateRoutingKey(s.RoutingKey)
	}
	if err == nil && s.Fallback != "" {
		err = ValidateQueueName(s.Fallback)
	}
	if err == nil {
		err = s.Visibility.validate()
	}
	for i := 0; err == nil && i < len(s.Messages); i++ {
		err = s.Messages[i].validate()
	}
	return err
}

// queue adds the shipment's statement to a batch.
func (s *Shipment) queue(b *pgx.Batch) {
	at, in := s.Visibility.args()
	bodies, headers := make([]*string, len(s.Messages)), make([]*string, len(s.Messages))
	for i := range s.Messages {
		bodies[i], headers[i] = text(s.Messages[i].Body), text(s.Messages[i].Headers)
	}
	switch {
	case s.Queue != "":
		b.Queue(`with sent as (`+sendToQueueSQL+`)`+sentSQL, at, in, s.Queue, bodies, headers, s.Notify)
	case s.Fallback == "":
		b.Queue(`with sent as (`+sendToTopicSQL+`)`+sentSQL, at, in, s.RoutingKey, bodies, headers, s.Notify)
	default:
		b.Queue(`with routed as materialized (`+sendToTopicSQL+`), kept as materialized (`+sendToFallbackSQL+`),
			sent as (select queue_name from routed union all select queue_name from kept)`+sentSQL,
			at, in, s.RoutingKey, bodies, headers, s.Notify, s.Fallback)
	}
}

// The parts of a shipment's statement. A function in FROM runs to its end before its first row is
// seen, so distinct does not cut it short.
const (
	sendToQueueSQL = `
		select distinct $3::text as queue_name
		from pgmq.send_batch($3::text, $4::text[]::jsonb[], $5::text[]::jsonb[], ` + visibleAtSQL + `)`

	sendToTopicSQL = `
		select distinct s.queue_name
		from pgmq.send_batch_topic($3::text, $4::text[]::jsonb[], $5::text[]::jsonb[], ` + visibleAtSQL + `) as s`

	sendToFallbackSQL = `
		select distinct $7::text as queue_name
		from pgmq.send_batch($7::text, $4::text[]::jsonb[], $5::text[]::jsonb[], ` + visibleAtSQL + `)
		where not exists (select from routed)`

	sentSQL = `
		select queue_name, case when $6::bool then pg_notify('pgmq.q_' || lower(queue_name) || '.INSERT', '')::text end
		from sent`
)

// Notify tells the listeners of these queues that there may be messages, as a Shipment with Notify
// does, but without sending one.
func (c *Client) Notify(ctx context.Context, queues ...string) error {
	op := operation{name: "notify"}
	channels := make([]string, len(queues))
	for i, queue := range queues {
		if err := ValidateQueueName(queue); err != nil {
			return op.fail(err)
		}
		channels[i] = Channel(queue)
	}
	return c.wrap(ctx, op, exec(ctx, c, `
		select pg_notify(channel, '')
		from unnest($1::text[]) as channel`, channels))
}
