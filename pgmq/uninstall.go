package pgmq

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Uninstalled is what Uninstall dropped.
type Uninstalled struct {
	// Version is the schema that was there.
	Version Version
	// Queues are all queues, in the order of their names.
	Queues []DroppedQueue
}

// DroppedQueue is a queue that is gone.
type DroppedQueue struct {
	Name string
	// Messages and Archived count what was in it and in its archive. Queues whose names differ by case
	// only had one table, and are counted alike.
	Messages, Archived int64
}

// Uninstall drops the schema that Install brought along, with every queue, message and archive, and
// whatever else is in it. The caller confirms that by the name of the database: another one is a
// *ConsentError, and nothing is done.
//
// It is one transaction, which waits for those that use a queue and is waited for by others. It drops
// nothing outside of the schema: where a view, a function or a foreign key of somebody else depends on it,
// it fails with an *InUseError. It does not touch the extension or a PGMQ from elsewhere (*OtherKindError),
// a schema that is not PGMQ's (ErrUnknownSchema), or one newer than this library (*NewerSchemaError).
// Without PGMQ it fails with ErrNotInstalled.
func (c *Client) Uninstall(ctx context.Context, database string) (Uninstalled, error) {
	op := uninstalling
	var u Uninstalled
	err := c.InTx(ctx, func(tx *Client) (err error) {
		u, err = tx.uninstall(ctx, database)
		return err
	})
	if err != nil {
		return Uninstalled{}, c.wrap(ctx, op, err)
	}
	return u, nil
}

// uninstalling is the operation of all that Uninstall does.
var uninstalling = operation{name: "uninstall"}

// uninstall takes the lock of Install first, and then one on every table: from there on nobody can use
// them or begin to depend on them. Who creates a queue at this moment waits for one of these locks, and
// fails when the schema is gone.
func (c *Client) uninstall(ctx context.Context, database string) (u Uninstalled, err error) {
	if err := lockInstall(ctx, c, uninstalling); err != nil {
		return u, err
	}
	s, err := c.schemaState(ctx)
	if err != nil {
		return u, err
	}
	if database != s.database {
		return u, &ConsentError{Database: s.database, Given: database}
	}
	if u.Version, err = s.droppable(); err != nil {
		return u, err
	}
	if err := c.lockTables(ctx, s); err != nil {
		return u, err
	}
	if u.Queues, err = c.countQueues(ctx); err != nil {
		return u, err
	}
	if users, err := c.dependents(ctx); err != nil || len(users) > 0 {
		return u, firstError(err, &InUseError{By: users})
	}
	// Partitioned queues are in pg_partman's books, too: dropping the queue takes them out.
	err = exec(ctx, c, uninstalling, `
		select pgmq.drop_queue(m.queue_name::text) from pgmq.meta as m`)
	if err != nil {
		return u, err
	}
	return u, exec(ctx, c, uninstalling, `drop schema pgmq cascade`)
}

// droppable says whether the schema is one that Install made. A version of it that was changed (see
// ChangedSchemaError) is still that.
func (s schemaState) droppable() (Version, error) {
	v, err := s.installed()
	switch {
	case err != nil:
		return v, err
	case v.Kind != KindEmbedded:
		return v, &OtherKindError{Installed: v, Wanted: KindEmbedded}
	case v.Number > newestVersion():
		return v, &NewerSchemaError{Installed: v.Number, Known: newestVersion()}
	}
	return v, nil
}

// lockTables locks them all for this transaction alone, after a look at what only their owners may: drop
// them.
func (c *Client) lockTables(ctx context.Context, s schemaState) error {
	owners, err := query(ctx, c, uninstalling, scanValue[string], `
		select distinct pg_catalog.pg_get_userbyid(o.owner)::text
		from (
			select n.nspowner from pg_catalog.pg_namespace as n where n.nspname = 'pgmq'
			union all
			select r.relowner from pg_catalog.pg_class as r where r.relnamespace = 'pgmq'::regnamespace
		) as o (owner)
		where not pg_catalog.pg_has_role(o.owner, 'usage')
		order by 1`)
	if err != nil {
		return err
	}
	if len(owners) > 0 {
		missing := make([]string, len(owners))
		for i, owner := range owners {
			missing[i] = "membership in role " + owner
		}
		return &RightsError{Role: s.role, Missing: missing, Err: errUninstallRight}
	}
	locks, err := query(ctx, c, uninstalling, scanValue[string], `
		select format('lock table pgmq.%I in access exclusive mode', r.relname)
		from pg_catalog.pg_class as r
		where r.relnamespace = 'pgmq'::regnamespace and r.relkind in ('r', 'p') and not r.relispartition
		order by r.relname = 'meta' desc, r.relname`)
	for i := 0; err == nil && i < len(locks); i++ {
		err = exec(ctx, c, uninstalling, locks[i])
	}
	return err
}

// countQueues counts what is in each queue and its archive, of which a conversion may have left an old one.
func (c *Client) countQueues(ctx context.Context) ([]DroppedQueue, error) {
	counts, err := query(ctx, c, uninstalling, func(r row) (q countedQueue, err error) {
		err = r.Scan(&q.Name, &q.messagesSQL, &q.archivedSQL)
		return q, err
	}, `
		select
			m.queue_name::text,
			coalesce(string_agg(format('select from pgmq.%I', r.relname), ' union all ')
				filter (where r.relname = 'q_' || lower(m.queue_name)), 'select where false'),
			coalesce(string_agg(format('select from pgmq.%I', r.relname), ' union all ')
				filter (where r.relname <> 'q_' || lower(m.queue_name)), 'select where false')
		from pgmq.meta as m
		left join pg_catalog.pg_class as r on r.relnamespace = 'pgmq'::regnamespace
			and r.relkind in ('r', 'p')
			and (
				r.relname in ('q_' || lower(m.queue_name), 'a_' || lower(m.queue_name))
				or r.relname = 'a_' || lower(m.queue_name) || '_old'
				and not exists (select from pgmq.meta as o where lower(o.queue_name) = lower(m.queue_name) || '_old')
			)
		group by m.queue_name
		order by m.queue_name`)
	queues := make([]DroppedQueue, len(counts))
	for i, q := range counts {
		if err != nil {
			break
		}
		q.DroppedQueue, err = queryOne(ctx, c, uninstalling, func(r row) (DroppedQueue, error) {
			err := r.Scan(&q.Messages, &q.Archived)
			return q.DroppedQueue, err
		}, `select (select count(*) from (`+q.messagesSQL+`) as m), (select count(*) from (`+q.archivedSQL+`) as a)`)
		queues[i] = q.DroppedQueue
	}
	return queues, err
}

type countedQueue struct {
	DroppedQueue
	messagesSQL, archivedSQL string // that have a row for each message
}

// dependents describes what is not in the schema and could not be without it. What belongs to an object
// in the schema (an index, a rule, a trigger, ...) is in it.
func (c *Client) dependents(ctx context.Context) ([]string, error) {
	return query(ctx, c, uninstalling, scanValue[string], `
		with recursive inside (classid, objid) as (
			select d.classid, d.objid
			from pg_catalog.pg_depend as d
			where d.refclassid = 'pg_catalog.pg_namespace'::regclass and d.refobjid = 'pgmq'::regnamespace
			union
			select d.classid, d.objid
			from inside as i
			join pg_catalog.pg_depend as d on d.refclassid = i.classid and d.refobjid = i.objid
			where d.deptype <> 'n'
		)
		select distinct pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
		from inside as i
		join pg_catalog.pg_depend as d on d.refclassid = i.classid and d.refobjid = i.objid
		where d.deptype = 'n'
			and not exists (select from inside as o where o.classid = d.classid and o.objid = d.objid)
		order by 1`)
}

var errUninstallRight = errors.New("it is needed to drop the schema")

// ConsentError says that Uninstall was called with another name than the database's.
type ConsentError struct {
	// Database is the name of the database, Given what Uninstall was called with.
	Database, Given string
}

func (e *ConsentError) Error() string {
	return fmt.Sprintf("the database is %q: uninstalling is confirmed by its name, and %q was given", e.Database, e.Given)
}

// InUseError says what depends on the schema without being in it.
type InUseError struct {
	// By describes each object in Postgres's words: "view reports".
	By []string
}

func (e *InUseError) Error() string {
	return "these depend on the schema pgmq; drop them first: " + strings.Join(e.By, ", ")
}
