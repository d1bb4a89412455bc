package pgmq

import (
	"context"
	"fmt"
	"time"
)

// Binding says that messages whose routing key matches Pattern go to Queue.
type Binding struct {
	Pattern string
	Queue   string
	BoundAt time.Time
}

// BindTopic sends a copy of every message whose routing key matches pattern to queue, from now on
// (pgmq.bind_topic). In a pattern, * stands for one segment and # for any text. Binding again is no
// error; a missing queue is ErrQueueNotFound. It needs PGMQ 1.11.
func (c *Client) BindTopic(ctx context.Context, pattern, queue string) error {
	op := operation{"bind_topic", pattern}
	if err := firstError(ValidateTopicPattern(pattern), ValidateQueueName(queue)); err != nil {
		return op.fail(err)
	}
	return c.onQueue(ctx, op, queue, `pgmq.bind_topic($2::text, m.queue_name::text)`, pattern)
}

// UnbindTopic takes a binding back, and says whether there was one (pgmq.unbind_topic). A missing queue
// is ErrQueueNotFound.
func (c *Client) UnbindTopic(ctx context.Context, pattern, queue string) (bool, error) {
	op := operation{"unbind_topic", pattern}
	if err := firstError(ValidateTopicPattern(pattern), ValidateQueueName(queue)); err != nil {
		return false, op.fail(err)
	}
	unbound, err := query(ctx, c, op, scanValue[bool], `
		select pgmq.unbind_topic($2::text, m.queue_name::text)
		from pgmq.meta as m
		where m.queue_name = $1::text`, queue, pattern)
	if err == nil && len(unbound) == 0 {
		err = fmt.Errorf("%w: %q", ErrQueueNotFound, queue)
	}
	return err == nil && unbound[0], c.wrap(ctx, op, err)
}

// Bindings returns the bindings of the named queues, or all of them, in the order of patterns and
// queues (pgmq.list_topic_bindings). A missing queue has none.
func (c *Client) Bindings(ctx context.Context, queues ...string) ([]Binding, error) {
	op := operation{name: "list_topic_bindings"}
	bindings, err := query(ctx, c, op, scanBinding, `
		select pattern, queue_name, bound_at
		from pgmq.list_topic_bindings()
		where cardinality($1::text[]) = 0 or queue_name = any($1::text[])
		order by pattern, queue_name`, append([]string{}, queues...))
	return bindings, c.wrap(ctx, op, err)
}

// Routes returns the bindings that a message with this routing key would take, without sending one
// (pgmq.test_routing). Two bindings of one queue still give it one copy.
func (c *Client) Routes(ctx context.Context, routingKey string) ([]Binding, error) {
	op := operation{"test_routing", routingKey}
	if err := ValidateRoutingKey(routingKey); err != nil {
		return nil, op.fail(err)
	}
	routes, err := query(ctx, c, op, scanBinding, `
		select b.pattern, b.queue_name, b.bound_at
		from pgmq.test_routing($1::text) as r
		join pgmq.topic_bindings as b on b.pattern = r.pattern and b.queue_name = r.queue_name
		order by b.pattern, b.queue_name`, routingKey)
	return routes, c.wrap(ctx, op, err)
}

func scanBinding(r row) (b Binding, err error) {
	err = r.Scan(&b.Pattern, &b.Queue, &b.BoundAt)
	return b, err
}
