package pgmq

import (
	"context"
	"errors"
	"fmt"
)

// ErrRoleNotFound says that the server has no such role.
var ErrRoleNotFound = errors.New("role not found")

// Access is what a role may do, for Grant and Revoke: Publish, PublishTopics, Consume, Monitor.
type Access struct {
	name     string
	rights   rights
	queues   []string
	byTopics bool // queues are routing keys
	orAll    bool // no queues are all of them
}

// Publish is to send to these queues, at least one. It is not to read: of what was sent the role sees
// nothing but its own ids. Nor can it choose an id, or a time of sending.
func Publish(queues ...string) Access {
	return Access{name: "Publish", rights: publisherRights, queues: queues}
}

// PublishTopics is to send to these routing keys: Publish for every queue that is bound to one of them
// now, and to see the bindings. Without keys it is for every queue that is bound to anything. A queue that
// is bound later needs another Grant: until then, sending to it fails as a whole.
func PublishTopics(routingKeys ...string) Access {
	r := publisherRights
	r.bindings = []privilege{selectAll}
	return Access{name: "PublishTopics", rights: r, queues: routingKeys, byTopics: true, orAll: true}
}

// Consume is to read from these queues, at least one, and to settle what was read: hide, delete, archive.
// It is not to send, nor to change a message, nor to see the archive. With it comes to see which queues
// and bindings there are: a subscriber looks whether its own are there.
func Consume(queues ...string) Access {
	return Access{name: "Consume", queues: queues, rights: rights{
		queue:    []privilege{selectAll, hide, deleteAny},
		archive:  []privilege{insertArchive, selectID},
		meta:     []privilege{selectAll},
		bindings: []privilege{selectAll},
	}}
}

// Monitor is to watch these queues, and without any all that there are now: their metrics, which queues,
// bindings and throttles there are, and when messages were sent and read. It is not to see a payload or a
// header. MetricsAll needs it for all queues.
//
// In the schema that Install brings along, the members of Postgres's role pg_monitor may do the same,
// in queues to come as well.
func Monitor(queues ...string) Access {
	return Access{name: "Monitor", queues: queues, orAll: true, rights: rights{
		queue:    []privilege{count},
		archive:  []privilege{countArchive},
		sequence: []privilege{selectAll},
		meta:     []privilege{selectAll},
		bindings: []privilege{selectAll},
		throttle: []privilege{selectAll},
	}}
}

// publisherRights include those of the trigger that notifies, whether or not the queue has it now:
// enabling notifications must not shut senders out.
var publisherRights = rights{
	queue:    []privilege{insertMessage, selectID},
	throttle: []privilege{selectAll, notified},
}

// Grant sees to it that a role can do all of this, and gives it no other right: for an application whose
// role is not the owner of the queues. What the role has already, be it through another role, is not
// granted again, so that Grant may be called whenever a queue was created or bound. Queues to come are not
// included.
//
// The caller has to be, or be a member of, the owner of the queues and of the schema; who lacks that gets
// a *RightsError. A missing queue is ErrQueueNotFound, a missing role ErrRoleNotFound. It is all or
// nothing.
func (c *Client) Grant(ctx context.Context, role string, access ...Access) error {
	op := operation{name: "grant"}
	if len(access) == 0 {
		return op.fail(&ValueError{Name: "access", Value: "nothing", Rule: "one or more of Publish, PublishTopics, Consume, Monitor"})
	}
	return c.changeRights(ctx, op, role, access, func(tx *Client) error {
		all, err := tx.resolve(ctx, op, access)
		if err != nil {
			return err
		}
		return tx.runAsOwner(ctx, op, `
			with `+wantedSQL+`
			select n.nspowner, format('grant usage on schema pgmq to %I', $6::text), 0 as place
			from pg_catalog.pg_namespace as n
			where n.nspname = 'pgmq' and not has_schema_privilege($6::text, n.oid, 'usage')
			union all
			select w.relowner, format('grant %s%s on table pgmq.%I to %I', w.privilege, w.columns, w.relname, $6::text), w.place
			from wanted as w
			where not case
				when w.columns = '' then has_table_privilege($6::text, w.oid, w.privilege)
				else (select bool_and(has_column_privilege($6::text, w.oid, a.name, w.privilege)) from unnest(w.names) as a (name))
			end
			order by place`, append(all.args(), role)...)
	})
}

// Revoke takes rights on queues from a role. What two kinds of Access have in common goes with either:
// Grant again what is to stay. Rights that are not on a queue (to use the schema, to see which queues and
// bindings there are) stay as well; Revoke without any Access takes those, too: everything that the role
// was granted on the schema and its tables. What it has through another role is not touched.
//
// Who may call it, and its errors, are as for Grant.
func (c *Client) Revoke(ctx context.Context, role string, access ...Access) error {
	op := operation{name: "revoke"}
	return c.changeRights(ctx, op, role, access, func(tx *Client) error {
		if len(access) == 0 {
			return tx.runAsOwner(ctx, op, `
				with granted as (
					select d.classid, d.objid
					from pg_catalog.pg_shdepend as d
					where d.dbid = (select b.oid from pg_catalog.pg_database as b where b.datname = current_database())
						and d.refclassid = 'pg_catalog.pg_authid'::regclass
						and d.refobjid = quote_ident($1::text)::regrole
						and d.deptype = 'a'
				)
				select r.relowner, format('revoke all on table pgmq.%I from %I', r.relname, $1::text)
				from pg_catalog.pg_class as r
				where r.relnamespace = to_regnamespace('pgmq')
					and exists (
						select from granted as g where g.classid = 'pg_catalog.pg_class'::regclass and g.objid = r.oid
					)
				union all
				select n.nspowner, format('revoke all on schema pgmq from %I', $1::text)
				from pg_catalog.pg_namespace as n
				where n.nspname = 'pgmq'
					and exists (
						select from granted as g where g.classid = 'pg_catalog.pg_namespace'::regclass and g.objid = n.oid
					)`, role)
		}
		var onQueues []Access
		for _, a := range access {
			a.rights.meta, a.rights.bindings, a.rights.throttle = nil, nil, nil
			onQueues = append(onQueues, a)
		}
		all, err := tx.resolve(ctx, op, onQueues)
		if err != nil {
			return err
		}
		return tx.runAsOwner(ctx, op, `
			with `+wantedSQL+`
			select w.relowner, format('revoke %s%s on table pgmq.%I from %I', w.privilege, w.columns, w.relname, $6::text)
			from wanted as w
			order by w.place`, append(all.args(), role)...)
	})
}

// changeRights calls f in a transaction that has the lock of Install: two at a time would change the rights
// of one table at once, which Postgres refuses.
func (c *Client) changeRights(ctx context.Context, op operation, role string, access []Access, f func(*Client) error) error {
	for _, a := range access {
		if len(a.queues) == 0 && !a.orAll {
			return op.fail(&ValueError{Name: a.name, Value: "given no queue", Rule: "for one or more"})
		}
	}
	err := c.InTx(ctx, func(tx *Client) error {
		if err := lockInstall(ctx, tx, op); err != nil {
			return err
		}
		known, err := queryOne(ctx, tx, op, scanValue[bool], `
			select exists (select from pg_catalog.pg_roles as r where r.rolname = $1::text)`, role)
		if err == nil && !known {
			err = fmt.Errorf("%w: %q", ErrRoleNotFound, role)
		}
		if err != nil {
			return err
		}
		return f(tx)
	})
	var failed *Error
	if errors.As(err, &failed) {
		err = failed.Err // of an operation that this one made use of
	}
	return c.wrap(ctx, op, err)
}

// resolve lists what is wanted on which tables.
func (c *Client) resolve(ctx context.Context, op operation, access []Access) (all wants, err error) {
	for _, a := range access {
		queues := a.queues
		switch {
		case a.byTopics:
			queues, err = c.boundTo(ctx, a.queues)
		case len(queues) == 0:
			var every []Queue
			every, err = c.Queues(ctx)
			for _, q := range every {
				queues = append(queues, q.Name)
			}
		default:
			err = c.requireQueues(ctx, op, queues)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, a.rights.on(queues)...)
	}
	return all, nil
}

// boundTo are the queues that these routing keys lead to; no keys are all there can be.
func (c *Client) boundTo(ctx context.Context, routingKeys []string) ([]string, error) {
	if len(routingKeys) == 0 {
		bindings, err := c.Bindings(ctx)
		return queuesOf(bindings), err
	}
	var all []Binding
	for _, key := range routingKeys {
		routes, err := c.Routes(ctx, key)
		if err != nil {
			return nil, err
		}
		all = append(all, routes...)
	}
	return queuesOf(all), nil
}

// runAsOwner runs statements that only an owner may: sql finds the owner and the text of each. Where the
// role is none, Postgres may just warn and change nothing.
func (c *Client) runAsOwner(ctx context.Context, op operation, sql string, args ...any) error {
	type owned struct{ role, owner, statement string }
	statements, err := query(ctx, c, op, func(r row) (s owned, err error) {
		err = r.Scan(&s.role, &s.owner, &s.statement)
		return s, err
	}, `
		select
			current_user::text,
			case when pg_has_role(s.owner, 'usage') then '' else pg_get_userbyid(s.owner)::text end,
			s.statement
		from (`+sql+`) as s (owner, statement)`, args...)
	for _, s := range statements {
		if s.owner != "" {
			return &RightsError{Role: s.role, Missing: []string{"membership in role " + s.owner}, Err: errNotOwner}
		}
	}
	for i := 0; err == nil && i < len(statements); i++ {
		err = exec(ctx, c, op, statements[i].statement)
	}
	return err
}

var errNotOwner = errors.New("only the owner grants and revokes")
