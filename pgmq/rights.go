package pgmq

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// rights is what an operation needs, by what it needs it on.
type rights struct {
	queue, archive, meta, bindings, everyQueue []string
	create                                     bool // on the schema
}

// needed says what the operations need, so that an error can name what is missing.
var needed = map[string]rights{
	"send":                {queue: []string{"INSERT", "SELECT"}},
	"send_topic":          {bindings: []string{"SELECT"}, everyQueue: []string{"INSERT", "SELECT"}},
	"read":                {queue: []string{"SELECT", "UPDATE"}},
	"set_vt":              {queue: []string{"SELECT", "UPDATE"}},
	"pop":                 {queue: []string{"SELECT", "DELETE"}},
	"delete":              {queue: []string{"SELECT", "DELETE"}},
	"archive":             {queue: []string{"SELECT", "DELETE"}, archive: []string{"INSERT", "SELECT"}},
	"metrics":             {queue: []string{"SELECT"}, meta: []string{"SELECT"}},
	"purge":               {queue: []string{"SELECT", "TRUNCATE"}},
	"create":              {meta: []string{"SELECT", "INSERT"}, create: true},
	"list_queues":         {meta: []string{"SELECT"}},
	"bind_topic":          {meta: []string{"SELECT"}, bindings: []string{"SELECT", "INSERT"}},
	"unbind_topic":        {bindings: []string{"SELECT", "DELETE"}},
	"list_topic_bindings": {bindings: []string{"SELECT"}},
	"test_routing":        {bindings: []string{"SELECT"}},
}

// explainRights asks the server which of the rights that op needs the role lacks. Where it cannot (the
// transaction has failed already, the role may not even look), the server's own error has to do.
func (c *Client) explainRights(ctx context.Context, op operation, cause error) error {
	plain := cause
	if !errors.Is(cause, ErrPermissionDenied) {
		plain = fmt.Errorf("%w: %w", ErrPermissionDenied, cause)
	}
	if c.db.isTx() {
		return plain
	}
	tables, privileges := needed[op.name].list(op.queue)
	err := &RightsError{Err: cause}
	missing, failed := query(ctx, c, op, func(r row) (right string, scan error) {
		scan = r.Scan(&err.Role, &right)
		return right, scan
	}, `
		with schema as (
			select n.oid
			from pg_catalog.pg_namespace as n
			where n.nspname = 'pgmq'
		)
		select current_user::text, 'USAGE on schema pgmq'
		from schema as s
		where not has_schema_privilege(s.oid, 'usage')
		union all
		select current_user::text, 'CREATE on schema pgmq'
		from schema as s
		where $3::bool and not has_schema_privilege(s.oid, 'create')
		union all
		-- no table is every queue's: a topic may lead to any of them
		select current_user::text, w.privilege || ' on table pgmq.' || c.relname
		from unnest($1::text[], $2::text[]) as w (relname, privilege)
		join schema as s on true
		join pg_catalog.pg_class as c on c.relnamespace = s.oid and c.relkind in ('r', 'p')
			and (c.relname = w.relname or w.relname is null and c.relname like 'q\_%')
		where not has_table_privilege(c.oid, w.privilege)`,
		tables, privileges, needed[op.name].create)
	if failed != nil || len(missing) == 0 {
		return plain
	}
	err.Missing = missing
	return err
}

// explainRolledBack explains a missing right for an operation inside of a transaction: there, the
// server could not be asked any more.
func (c *Client) explainRolledBack(ctx context.Context, err error) error {
	var (
		failed    *Error
		explained *RightsError
	)
	if !errors.Is(err, ErrPermissionDenied) || errors.As(err, &explained) || !errors.As(err, &failed) || c.db.isTx() {
		return err
	}
	op := operation{failed.Op, failed.Queue}
	return op.fail(c.explainRights(ctx, op, failed.Err))
}

// list pairs tables with privileges. A nil table stands for every queue's.
func (r rights) list(queue string) (tables []*string, privileges []string) {
	add := func(table *string, needs []string) {
		for _, privilege := range needs {
			tables, privileges = append(tables, table), append(privileges, privilege)
		}
	}
	name := func(s string) *string { return &s }
	add(name("q_"+strings.ToLower(queue)), r.queue)
	add(name("a_"+strings.ToLower(queue)), r.archive)
	add(name("meta"), r.meta)
	add(name("topic_bindings"), r.bindings)
	add(nil, r.everyQueue)
	return tables, privileges
}
