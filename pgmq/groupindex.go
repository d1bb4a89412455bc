package pgmq

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	stateDuplicateTable  = "42P07"
	stateUniqueViolation = "23505"
	stateUndefinedObject = "42704"
	stateDeadlock        = "40P01"
)

// PrepareGroups creates the index by which a grouped Reader finds the heads of the groups, unless there is
// one; in the embedded schema that of IndexGroups is equal. Senders are not blocked, however
// many messages the queue has, and any number of processes may ask for it at once. A grouped Reader does
// so itself, and works without it where its role may not; but then each read looks at every message.
//
// In a transaction, and on a partitioned queue, the index cannot be built without blocking senders until it
// is complete.
func (c *Client) PrepareGroups(ctx context.Context, queue string) error {
	op := operation{"create_fifo_index", queue}
	if err := ValidateQueueName(queue); err != nil {
		return op.fail(err)
	}
	retry := newRetry()
	for {
		ready, err := c.prepareGroups(ctx, queue)
		if err != nil || ready {
			return c.wrap(ctx, op, err)
		}
		timer := time.NewTimer(retry.NextBackOff())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return op.fail(context.Cause(ctx))
		}
	}
}

// prepareGroups makes one attempt. False without an error: somebody else is at it.
func (c *Client) prepareGroups(ctx context.Context, queue string) (ready bool, err error) {
	op := operation{"create_fifo_index", queue}
	found, err := c.groupIndexes(ctx, queue)
	if err != nil {
		return false, err
	}
	for _, index := range found.indexes {
		switch {
		case index.valid:
			return true, nil
		case index.building:
			return false, nil
		}
		// Whoever was building it has died.
		err := exec(ctx, c, op, `drop index concurrently if exists `+pgx.Identifier{"pgmq", index.name}.Sanitize())
		if err != nil && stateOf(err) != stateUndefinedObject {
			return false, c.unlessBeaten(err)
		}
	}
	concurrently := `concurrently`
	if found.partitioned || c.db.isTx() {
		concurrently = ``
	}
	err = exec(ctx, c, op, fmt.Sprintf(`create index %s if not exists %s on %s (%s, msg_id)`,
		concurrently, pgx.Identifier{groupIndex(queue)}.Sanitize(), table(queue), groupKeySQL))
	return false, c.unlessBeaten(err) // the next attempt finds it, and sees whether it is valid
}

// unlessBeaten is nil where somebody else was faster. Two who build concurrently may deadlock: one waits
// for the lock on the table, while the other, who has it, waits for everybody that began before the index.
func (c *Client) unlessBeaten(err error) error {
	switch state := stateOf(err); {
	case state == stateDuplicateTable || state == stateUniqueViolation:
		return nil
	case state == stateDeadlock && !c.db.isTx():
		return nil
	}
	return err
}

// groupIndex is the name of the index: at most 63 bytes, and none of PGMQ's own.
func groupIndex(queue string) string { return "q_" + strings.ToLower(queue) + "_group_idx" }

type groupIndexes struct {
	partitioned bool
	indexes     []foundIndex
}

type foundIndex struct {
	name            string
	valid, building bool
}

func (c *Client) groupIndexes(ctx context.Context, queue string) (found groupIndexes, err error) {
	rows, err := query(ctx, c, operation{"create_fifo_index", queue}, func(r row) (index *foundIndex, err error) {
		var (
			name            *string
			valid, building *bool
		)
		if err := r.Scan(&found.partitioned, &name, &valid, &building); err != nil || name == nil {
			return nil, err
		}
		return &foundIndex{*name, *valid, *building}, nil
	}, `
		select t.relkind = 'p', i.relname::text, x.indisvalid, exists (
			select from pg_catalog.pg_stat_progress_create_index as p where p.index_relid = i.oid
		)
		from pg_catalog.pg_class as t
		left join (
			pg_catalog.pg_index as x
			join pg_catalog.pg_class as i on i.oid = x.indexrelid
			join pg_catalog.pg_am as a on a.oid = i.relam and a.amname = 'btree'
		) on x.indrelid = t.oid and i.relname in ($2::text, $3::text)
		where t.oid = $1::text::regclass`,
		table(queue), groupIndex(queue), "q_"+strings.ToLower(queue)+"_fifo_idx")
	for _, index := range rows {
		if index != nil {
			found.indexes = append(found.indexes, *index)
		}
	}
	return found, err
}
