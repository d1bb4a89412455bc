package pgmq

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// tableRights says what an operation needs on the queue's own table. Operations on topics are not
// here: they need the same as "send" on every queue that is bound.
var tableRights = map[string][]string{
	"send":    {"INSERT", "SELECT"},
	"read":    {"SELECT", "UPDATE"},
	"set_vt":  {"SELECT", "UPDATE"},
	"pop":     {"SELECT", "DELETE"},
	"delete":  {"SELECT", "DELETE"},
	"archive": {"SELECT", "DELETE"},
	"metrics": {"SELECT"},
	"purge":   {"SELECT", "DELETE", "TRUNCATE"},
}

// explainRights asks the server which of the rights that op needs the role lacks. Where it cannot
// (the transaction has failed already, the role may not even look), the server's error has to do.
func (c *Client) explainRights(ctx context.Context, op operation, cause error) error {
	plain := fmt.Errorf("%w: %w", ErrPermissionDenied, cause)
	if _, inTx := c.db.(pgx.Tx); inTx {
		return plain
	}
	type answer struct {
		Role    string
		Missing *string
	}
	rows, err := query(ctx, c, pgx.RowToStructByPos[answer], `
		with schema as (
			select oid, has_schema_privilege(oid, 'usage') as usable
			from pg_catalog.pg_namespace
			where nspname = 'pgmq'
		), wanted (relname, privilege) as (
			select 'topic_bindings', 'SELECT' where $2::bool
			union all
			select 'meta', unnest(array['SELECT', 'INSERT']) where $3::bool
			union all
			select 'q_' || lower($1::text), unnest($4::text[]) where not $2::bool
			union all
			select 'a_' || lower($1::text), unnest(array['INSERT', 'SELECT']) where $5::bool
			union all
			-- a topic may go to any queue, so every queue's table counts
			select c.relname, unnest($4::text[])
			from pg_catalog.pg_class as c
			join schema as s on s.oid = c.relnamespace
			where $2::bool and c.relname like 'q\_%' and c.relkind in ('r', 'p')
		)
		select current_user::text, m.missing
		from (
			select 'USAGE on schema pgmq' as missing from schema where not usable
			union all
			select 'CREATE on schema pgmq' from schema
			where $3::bool and not has_schema_privilege(oid, 'create')
			union all
			select w.privilege || ' on table pgmq.' || w.relname
			from wanted as w
			join schema as s on true
			join pg_catalog.pg_class as c on c.relnamespace = s.oid and c.relname = w.relname
			where not has_table_privilege(c.oid, w.privilege)
		) as m`,
		op.queue,
		op.name == "send_topic" || op.name == "bind_topic",
		op.name == "create",
		op.tableRights(),
		op.name == "archive",
	)
	if err != nil || len(rows) == 0 {
		return plain
	}
	rights := &RightsError{Role: rows[0].Role, Err: cause}
	for _, r := range rows {
		rights.Missing = append(rights.Missing, *r.Missing)
	}
	return rights
}

func (op operation) tableRights() []string {
	if op.name == "send_topic" {
		return tableRights["send"]
	}
	return append([]string{}, tableRights[op.name]...)
}
