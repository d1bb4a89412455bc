package pgmq

import (
	"context"
	"fmt"
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
	// Serialize holds FIFO groups to which nobody else who serializes them may send until the
	// transaction ends, so that within them the order of ids is the order of commits. Default: none.
	Serialize []string
}

// SendMany sends all shipments or none, in their order, in one round trip, and returns for each of
// them the queues that got its messages: nothing where a routing key leads nowhere (pgmq.send_batch,
// pgmq.send_batch_topic). On a handle that is not in a transaction it is a transaction of its own.
func (c *Client) SendMany(ctx context.Context, shipments []Shipment) ([][]string, error) {
	if len(shipments) == 0 {
		return nil, nil
	}
	var groups []string
	for i := range shipments {
		if err := shipments[i].validate(); err != nil {
			return nil, shipments[i].operation().fail(err)
		}
		groups = append(groups, shipments[i].Serialize...)
	}
	statements := make([]statement, 0, len(shipments)+1)
	if len(groups) > 0 {
		statements = append(statements, statement{serializeSQL, []any{groups}})
	}
	first := len(statements)
	for i := range shipments {
		statements = append(statements, shipments[i].statement())
	}
	if c.db == nil {
		return nil, shipments[0].operation().fail(ErrNilDB)
	}
	queues := make([][]string, len(shipments))
	at, err := queryAll(ctx, c, shipments[0].operation(), statements, func(i int, r rows) (err error) {
		if i < first {
			_, err = collect(r, scanNothing)
		} else {
			queues[i-first], err = collect(r, scanSent)
		}
		return err
	})
	if err != nil {
		return nil, c.wrap(ctx, shipments[max(at-first, 0)].operation(), err)
	}
	return queues, nil
}

// scanSent reads the queue of a sent message; the notification beside it says nothing.
func scanSent(r row) (queue string, err error) {
	var notified *string
	err = r.Scan(&queue, &notified)
	return queue, err
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

// statement sends the shipment. It returns the queues.
func (s *Shipment) statement() statement {
	at, in := s.Visibility.args()
	bodies, headers := texts(s.Messages)
	switch {
	case s.Queue != "":
		return statement{sendToQueueSQL, []any{at, in, s.Queue, bodies, headers, s.Notify}}
	case s.Fallback == "":
		return statement{sendToTopicSQL, []any{at, in, s.RoutingKey, bodies, headers, s.Notify}}
	default:
		return statement{sendToTopicOrFallbackSQL, []any{at, in, s.RoutingKey, bodies, headers, s.Notify, s.Fallback}}
	}
}

// serializeSQL takes the locks of all groups before the first id is given, in one order so that two
// senders do not wait for each other.
const serializeSQL = `
	select pg_advisory_xact_lock(keys.key)
	from (
		select distinct hashtextextended('pgmq.group.' || g, 0) as key
		from unnest($1::text[]) as g
		order by key
	) as keys`

// A function in FROM runs to its end before its first row is seen, so distinct does not cut it short.
const (
	queuePart = `
		select distinct $3::text as queue_name
		from pgmq.send_batch($3::text, $4::text[]::jsonb[], $5::text[]::jsonb[], ` + visibleAtSQL + `)`

	topicPart = `
		select distinct s.queue_name
		from pgmq.send_batch_topic($3::text, $4::text[]::jsonb[], $5::text[]::jsonb[], ` + visibleAtSQL + `) as s`

	fallbackPart = `
		select distinct $7::text as queue_name
		from pgmq.send_batch($7::text, $4::text[]::jsonb[], $5::text[]::jsonb[], ` + visibleAtSQL + `)
		where not exists (select from routed)`

	sentPart = `
		select queue_name, case when $6::bool then pg_notify('pgmq.q_' || lower(queue_name) || '.INSERT', '')::text end
		from sent`

	sendToQueueSQL           = `with sent as (` + queuePart + `)` + sentPart
	sendToTopicSQL           = `with sent as (` + topicPart + `)` + sentPart
	sendToTopicOrFallbackSQL = `with routed as materialized (` + topicPart + `), kept as materialized (` + fallbackPart + `),
		sent as (select queue_name from routed union all select queue_name from kept)` + sentPart
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
	return c.wrap(ctx, op, exec(ctx, c, op, `
		select pg_notify(channel, '')
		from unnest($1::text[]) as channel`, channels))
}
