package pgmq

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
)

// SendOption changes how messages are sent: VisibleIn or VisibleAt.
type SendOption interface{ applySend(*sendOptions) }

type sendOptions struct {
	visibility Visibility
}

// Delivery is where one copy of a message that was sent to a topic went.
type Delivery struct {
	Queue string
	ID    int64
}

// Send puts one message into a queue and returns its id (pgmq.send). It is visible at once, unless an
// option delays it.
func (c *Client) Send(ctx context.Context, queue string, msg Outgoing, opts ...SendOption) (int64, error) {
	op := operation{"send", queue}
	var o sendOptions
	for _, opt := range opts {
		opt.applySend(&o)
	}
	if err := firstError(ValidateQueueName(queue), msg.validate(), o.visibility.validate()); err != nil {
		return 0, op.fail(err)
	}
	at, in := o.visibility.args()
	id, err := queryOne(ctx, c, op, scanValue[int64], `
		select s.msg_id
		from pgmq.send($3::text, $4::text::jsonb, $5::text::jsonb, `+visibleAtSQL+`) as s (msg_id)`,
		at, in, queue, text(msg.Body), text(msg.Headers))
	return id, c.wrap(ctx, op, err)
}

// SendBatch puts messages into a queue, all or none, and returns their ids in the same order
// (pgmq.send_batch). No messages are no error.
func (c *Client) SendBatch(ctx context.Context, queue string, msgs []Outgoing, opts ...SendOption) ([]int64, error) {
	op := operation{"send", queue}
	b, err := newBatch(msgs, opts)
	if err = firstError(ValidateQueueName(queue), err); err != nil {
		return nil, op.fail(err)
	}
	if len(msgs) == 0 {
		return nil, nil
	}
	ids, err := query(ctx, c, op, scanValue[int64], `
		select s.msg_id
		from pgmq.send_batch($3::text, $4::text[]::jsonb[], $5::text[]::jsonb[], `+visibleAtSQL+`) as s (msg_id)`,
		b.args(queue)...)
	if err == nil && len(ids) != len(msgs) {
		err = fmt.Errorf("%d ids for %d messages", len(ids), len(msgs))
	}
	return ids, c.wrap(ctx, op, err)
}

// SendTopic sends one message to every queue that is bound to a pattern which routingKey matches, and
// returns where it went: nothing, without an error, where no queue is bound (pgmq.send_topic).
// It needs PGMQ 1.11.
func (c *Client) SendTopic(ctx context.Context, routingKey string, msg Outgoing, opts ...SendOption) ([]Delivery, error) {
	return c.SendBatchTopic(ctx, routingKey, []Outgoing{msg}, opts...)
}

// SendBatchTopic is SendTopic for many messages, all or none; the copies in one queue have the order
// of msgs (pgmq.send_batch_topic).
func (c *Client) SendBatchTopic(ctx context.Context, routingKey string, msgs []Outgoing, opts ...SendOption) ([]Delivery, error) {
	op := operation{"send_topic", routingKey}
	b, err := newBatch(msgs, opts)
	if err = firstError(ValidateRoutingKey(routingKey), err); err != nil {
		return nil, op.fail(err)
	}
	if len(msgs) == 0 {
		return nil, nil
	}
	sent, err := query(ctx, c, op, scanDelivery, `
		select s.queue_name, s.msg_id
		from pgmq.send_batch_topic($3::text, $4::text[]::jsonb[], $5::text[]::jsonb[], `+visibleAtSQL+`) as s`,
		b.args(routingKey)...)
	return sent, c.wrap(ctx, op, err)
}

func scanDelivery(r row) (d Delivery, err error) {
	err = r.Scan(&d.Queue, &d.ID)
	return d, err
}

// batch holds messages as the parameters that pgmq.send_batch takes.
type batch struct {
	bodies, headers []*string
	visibility      Visibility
}

func newBatch(msgs []Outgoing, opts []SendOption) (batch, error) {
	var o sendOptions
	for _, opt := range opts {
		opt.applySend(&o)
	}
	for i := range msgs {
		if err := msgs[i].validate(); err != nil {
			return batch{}, err
		}
	}
	b := batch{visibility: o.visibility}
	b.bodies, b.headers = texts(msgs)
	return b, o.visibility.validate()
}

func (b batch) args(target string) []any {
	at, in := b.visibility.args()
	return []any{at, in, target, b.bodies, b.headers}
}

// validate refuses what the server would refuse, before it is sent.
func (m Outgoing) validate() error {
	if m.Body != nil && !isJSON(m.Body) {
		return &ValueError{Name: "message", Value: abbreviate(m.Body), Rule: "valid JSON"}
	}
	if m.Headers != nil && (!bytes.HasPrefix(bytes.TrimLeft(m.Headers, " \t\r\n"), []byte("{")) || !isJSON(m.Headers)) {
		return &ValueError{Name: "headers", Value: abbreviate(m.Headers), Rule: "a JSON object"}
	}
	return nil
}

// text is raw as a parameter; nil is SQL NULL.
func text(raw json.RawMessage) *string {
	if raw == nil {
		return nil
	}
	s := string(raw)
	return &s
}

// abbreviate quotes the beginning of raw for an error.
func abbreviate(raw []byte) string {
	const most = 60
	if len(raw) <= most {
		return fmt.Sprintf("%q", raw)
	}
	return fmt.Sprintf("%q... (%d bytes)", raw[:most], len(raw))
}
