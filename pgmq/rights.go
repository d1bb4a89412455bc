package pgmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// privilege is a right on a table, or on some of its columns.
type privilege struct {
	name    string
	columns []string // nil: all. One that this version of PGMQ does not have is not missed.
}

// What senders, consumers and monitors do with the table of a queue.
var (
	insertMessage = privilege{"INSERT", []string{"vt", "message", "headers"}}
	selectID      = privilege{"SELECT", []string{"msg_id"}}
	selectAll     = privilege{name: "SELECT"}
	hide          = privilege{"UPDATE", []string{"read_ct", "last_read_at", "vt"}}
	setVT         = privilege{"UPDATE", []string{"vt"}}
	deleteAny     = privilege{name: "DELETE"}
	insertArchive = privilege{"INSERT", []string{"msg_id", "read_ct", "enqueued_at", "last_read_at", "vt", "message", "headers"}}
	count         = privilege{"SELECT", []string{"tableoid", "msg_id", "read_ct", "enqueued_at", "last_read_at", "vt"}}
	measure       = privilege{"SELECT", []string{"tableoid", "msg_id", "enqueued_at", "vt"}}
	countArchive  = privilege{"SELECT", append([]string{"archived_at"}, count.columns...)}
	// notified is what the trigger needs that notifies listeners: it runs with the rights of the sender.
	notified    = privilege{"UPDATE", []string{"last_notified_at"}}
	setThrottle = privilege{"UPDATE", []string{"throttle_interval_ms"}}
)

// rights is what an operation, or a role, needs, by what it needs it on.
type rights struct {
	queue, archive, sequence, meta, bindings, throttle []privilege
	// notify is on the throttles, where the queue has the trigger.
	notify []privilege
	// create is on the schema; own is to be a member of the role that owns the queue.
	create, own bool
}

// needed says what the operations need, so that an error can name what is missing.
var needed = map[string]rights{
	"send":                         {queue: []privilege{insertMessage, selectID}, notify: []privilege{selectAll, notified}},
	"read":                         {queue: []privilege{selectAll, hide}},
	"set_vt":                       {queue: []privilege{selectAll, setVT}},
	"pop":                          {queue: []privilege{selectAll, setVT, deleteAny}}, // to lock takes a right to update
	"delete":                       {queue: []privilege{selectID, deleteAny}},
	"archive":                      {queue: []privilege{selectAll, deleteAny}, archive: []privilege{insertArchive, selectID}},
	"metrics":                      {queue: []privilege{measure}, sequence: []privilege{selectAll}},
	"metrics_all":                  {queue: []privilege{measure}, sequence: []privilege{selectAll}, meta: []privilege{selectAll}},
	"purge":                        {queue: []privilege{selectID, {name: "TRUNCATE"}}},
	"create":                       {meta: []privilege{selectAll, {name: "INSERT"}}, create: true},
	"drop_queue":                   {meta: []privilege{selectAll, deleteAny}, own: true},
	"create_fifo_index":            {meta: []privilege{selectAll}, create: true, own: true},
	"list_queues":                  {meta: []privilege{selectAll}},
	"bind_topic":                   {meta: []privilege{selectAll}, bindings: []privilege{selectAll, {name: "INSERT"}}},
	"unbind_topic":                 {meta: []privilege{selectAll}, bindings: []privilege{selectAll, deleteAny}},
	"list_topic_bindings":          {bindings: []privilege{selectAll}},
	"test_routing":                 {bindings: []privilege{selectAll}},
	"enable_notify_insert":         {queue: []privilege{{name: "TRIGGER"}}, meta: []privilege{selectAll}, throttle: []privilege{selectAll, {name: "INSERT"}, setThrottle}},
	"update_notify_insert":         {meta: []privilege{selectAll}, throttle: []privilege{selectAll, setThrottle}},
	"disable_notify_insert":        {meta: []privilege{selectAll}, throttle: []privilege{selectAll, deleteAny}, own: true},
	"list_notify_insert_throttles": {throttle: []privilege{selectAll}},
}

// needs knows operations that are on all queues by their own name.
func (op operation) needs() rights {
	if all, ok := needed[op.name+"_all"]; ok && op.queue == "" {
		return all
	}
	return needed[op.name]
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
	needs, queues := op.needs(), []string{op.queue}
	if op.name == "send_topic" {
		// The bindings say which queues it needs rights on, if the role may see them.
		routes, err := c.Routes(ctx, op.queue)
		var lacking *RightsError
		if errors.As(err, &lacking) {
			return &RightsError{Role: lacking.Role, Missing: lacking.Missing, Err: cause}
		}
		needs, queues = needed["send"], queuesOf(routes)
	}
	var role string
	missing, err := query(ctx, c, op, func(r row) (right string, err error) {
		err = r.Scan(&role, &right)
		return right, err
	}, `
		with `+wantedSQL+`, missing (place, what) as (
			select 0, 'USAGE on schema pgmq'
			from schema as s
			where not has_schema_privilege(s.oid, 'usage')
			union all
			select 0, 'CREATE on schema pgmq'
			from schema as s
			where $6::bool and not has_schema_privilege(s.oid, 'create')
			union all
			select w.place, w.privilege || w.columns || ' on ' || w.kind || ' pgmq.' || w.relname
			from wanted as w
			where w.kind <> 'owner' and not case
				when w.columns = '' then has_table_privilege(w.oid, w.privilege)
				else (select bool_and(has_column_privilege(w.oid, a.name, w.privilege)) from unnest(w.names) as a (name))
			end
			union all
			select w.place, 'membership in role ' || pg_get_userbyid(w.relowner)
			from wanted as w
			where w.kind = 'owner' and not pg_has_role(w.relowner, 'usage')
		)
		select current_user::text, m.what
		from missing as m
		group by m.what
		order by min(m.place), m.what`, append(needs.on(queues).args(), needs.create)...)
	if err != nil || len(missing) == 0 {
		return plain
	}
	return &RightsError{Role: role, Missing: missing, Err: cause}
}

// wantedSQL finds what a list of wants (its args are the parameters) is about: the relations, and of the
// columns those that there are. It asks the catalog itself, because functions that take names fail
// without the right to use the schema.
const wantedSQL = `
	schema as (
		select n.oid
		from pg_catalog.pg_namespace as n
		where n.nspname = 'pgmq'
	), wanted as (
		select
			w.place, w.kind, w.privilege, r.oid, r.relname, r.relowner, c.names,
			coalesce(' (' || array_to_string(c.names, ', ') || ')', '') as columns
		from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) with ordinality
			as w (kind, relname, privilege, columns, notifier, place)
		join schema as s on true
		join pg_catalog.pg_class as t on t.relnamespace = s.oid
			and t.relkind in ('r', 'p')
			-- no queue has no name: all of them are meant
			and (t.relname = w.relname or w.relname = 'q_' and t.relname like 'q\_%' and not t.relispartition)
		join pg_catalog.pg_class as r on r.oid = case
			when w.kind = 'sequence' then (
				select d.objid
				from pg_catalog.pg_depend as d
				where d.classid = 'pg_catalog.pg_class'::regclass
					and d.refclassid = 'pg_catalog.pg_class'::regclass
					and d.refobjid = t.oid
					and d.deptype = 'i'
					and exists (select from pg_catalog.pg_sequence as q where q.seqrelid = d.objid)
			)
			else t.oid
		end
		cross join lateral (
			select array_agg(a.attname::text order by n.place) as names
			from unnest(string_to_array(w.columns, ',')) with ordinality as n (name, place)
			join pg_catalog.pg_attribute as a on a.attrelid = r.oid and a.attname = n.name
		) as c
		where w.notifier = '' or exists (
			select
			from pg_catalog.pg_class as q
			join pg_catalog.pg_trigger as g on g.tgrelid = q.oid
			join pg_catalog.pg_proc as p on p.oid = g.tgfoid and p.proname = 'notify_queue_listeners'
			where q.relnamespace = s.oid and q.relname = w.notifier
		)
	)`

// want is one privilege on one relation.
type want struct {
	kind     string // "table", or of a table its "sequence" or its "owner"
	table    string
	notifier string // not empty: only if this table notifies
	privilege
}

type wants []want

// on lists the rights on queues.
func (r rights) on(queues []string) wants {
	var all wants
	add := func(kind, table, notifier string, privileges []privilege) {
		for _, p := range privileges {
			all = append(all, want{kind, table, notifier, p})
		}
	}
	for _, queue := range queues {
		name := strings.ToLower(queue)
		add("table", "q_"+name, "", r.queue)
		add("table", "a_"+name, "", r.archive)
		add("sequence", "q_"+name, "", r.sequence)
		add("table", "notify_insert_throttle", "q_"+name, r.notify)
		if r.own {
			add("owner", "q_"+name, "", []privilege{{}})
		}
	}
	add("table", "meta", "", r.meta)
	add("table", "topic_bindings", "", r.bindings)
	add("table", "notify_insert_throttle", "", r.throttle)
	return all
}

// args are the first parameters of wantedSQL.
func (all wants) args() []any {
	var kinds, tables, privileges, columns, notifiers []string
	for _, w := range all {
		kinds, tables, notifiers = append(kinds, w.kind), append(tables, w.table), append(notifiers, w.notifier)
		privileges, columns = append(privileges, w.name), append(columns, strings.Join(w.columns, ","))
	}
	return []any{kinds, tables, privileges, columns, notifiers}
}

// queuesOf are the queues of bindings, each once.
func queuesOf(bindings []Binding) []string {
	var queues []string
	for _, b := range bindings {
		if !slices.Contains(queues, b.Queue) {
			queues = append(queues, b.Queue)
		}
	}
	return queues
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
