package pgmq

import "context"

// GroupHeader is the header whose value names the FIFO group of a message. Messages without it are one
// group, too.
const GroupHeader = "x-pgmq-group"

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

// Grouped makes Read respect FIFO groups: a message whose group has an earlier one that is hidden stays
// where it is. IndexGroups makes it fast.
func Grouped(s GroupStrategy) ReadOption { return readGrouped(s) }

type readGrouped GroupStrategy

func (g readGrouped) applyRead(o *readOptions) { o.function = g.function }

// IndexGroups makes grouped reads of these queues fast, or those of all queues if none is named. A queue
// that has its index already stays as it is; making one locks senders out (pgmq.create_fifo_index,
// pgmq.create_fifo_indexes_all, PGMQ 1.9). A grouped Reader walks the index of PrepareGroups, which is built
// beside senders; in the embedded schema either index serves both.
func (c *Client) IndexGroups(ctx context.Context, queues ...string) error {
	op := operation{name: "create_fifo_index"}
	if len(queues) == 0 {
		return c.wrap(ctx, op, exec(ctx, c, op, `select pgmq.create_fifo_indexes_all()`))
	}
	if err := c.requireQueues(ctx, op, queues); err != nil {
		return err
	}
	err := exec(ctx, c, op, `
		select pgmq.create_fifo_index(m.queue_name::text)
		from pgmq.meta as m
		where m.queue_name = any ($1::text[])
		order by m.queue_name`, queues)
	return c.wrap(ctx, op, err)
}
