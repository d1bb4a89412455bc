package pgmq_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmq/schema"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// A database with any older version, and something of everything in it, becomes by the upgrade what one is
// in which the newest version was there from the beginning. Nothing that was in it changes, and it works.
func TestUpgradeFromEveryVersion(t *testing.T) {
	t.Parallel()
	// A version to come, so that there is always one to upgrade to.
	known := slices.Clone(schema.Versions())
	known = append(known, schema.Version{Number: len(known) + 1, Checksum: "to come", SQL: `
		alter table pgmq.meta add column note text not null default 'none';
		create index meta_note_idx on pgmq.meta (note);
		create or replace function pgmq.list_queues() returns setof pgmq.queue_record language sql stable
		begin atomic
			select m.queue_name, m.is_partitioned, m.is_unlogged, m.created_at
			from pgmq.meta as m
			order by m.note, m.queue_name;
		end;`})
	newest := pgmqtest.NewEmpty(t)
	upgradeTo(t, newest, known)
	fill(t, newest)
	want := catalog(t, newest)

	for from := 1; from < len(known); from++ {
		t.Run(fmt.Sprint(from), func(t *testing.T) {
			t.Parallel()
			d := pgmqtest.NewEmpty(t)
			upgradeTo(t, d, known[:from])
			fill(t, d)
			before := data(t, d)
			upgradeTo(t, d, known)
			requireKept(t, before, data(t, d))
			requireCatalog(t, d, want)
			requireWorks(t, d)
		})
	}
}

// An older library leaves a newer schema as it is, whatever it is asked to do with it.
func TestNewerSchemaIsLeftAlone(t *testing.T) {
	t.Parallel()
	d := pgmqtest.NewEmpty(t)
	known := append(schema.Versions(), schema.Version{Number: len(schema.Versions()) + 1, Checksum: "newer"})
	upgradeTo(t, d, known)
	fill(t, d)
	c := pgmq.New(d.Pool)
	before, had := catalog(t, d), data(t, d)
	calls := map[string]func() error{
		"Install":   func() error { _, err := c.Install(t.Context()); return err },
		"Embedded":  func() error { _, err := c.Install(t.Context(), pgmq.EmbeddedSchema()); return err },
		"Uninstall": func() error { _, err := c.Uninstall(t.Context(), databaseOf(t, d)); return err },
	}
	for name, call := range calls {
		var newer *pgmq.NewerSchemaError
		if err := call(); !errors.As(err, &newer) || newer.Installed != len(known) || newer.Known != len(known)-1 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if v, err := c.Version(t.Context()); err != nil || v.Number != len(known) {
		t.Errorf("Version: %v, %v", v, err)
	}
	requireCatalog(t, d, before)
	requireKept(t, had, data(t, d))
}

// A PGMQ that others have installed by plain SQL is used, and nothing in it changes.
func TestForeignSchemaIsUsedAndLeftAlone(t *testing.T) {
	t.Parallel()
	d := newEmbedded(t)
	c := pgmq.New(d.Pool)
	run(t, d, `drop table pgmq._ledger`)
	fill(t, d)
	before, had := catalog(t, d), data(t, d)
	if v, err := c.Install(t.Context()); err != nil || v != (pgmq.Version{Kind: pgmq.KindForeign}) {
		t.Errorf("Install: %v, %v", v, err)
	}
	var other *pgmq.OtherKindError
	if _, err := c.Uninstall(t.Context(), databaseOf(t, d)); !errors.As(err, &other) || other.Installed.Kind != pgmq.KindForeign {
		t.Errorf("Uninstall: %v", err)
	}
	requireCatalog(t, d, before)
	requireKept(t, had, data(t, d))
	requireWorks(t, d)
}

func upgradeTo(t testing.TB, d *pgmqtest.Database, known []schema.Version) {
	t.Helper()
	v, err := pgmq.InstallVersions(pgmq.New(d.Pool), t.Context(), known, pgmq.EmbeddedSchema())
	if err != nil || v.Number != len(known) {
		t.Fatalf("Install: %v, %v; want version %d", v, err, len(known))
	}
}

// fill puts something of everything into a database. Queue "orders" then has the messages 1 (in flight),
// 3 and 4 (of one group), 5 (delayed), and 2 is archived.
func fill(t testing.TB, d *pgmqtest.Database) {
	t.Helper()
	ctx, c := t.Context(), pgmq.New(d.Pool)
	longest := strings.Repeat("n", pgmq.MaxQueueName)
	for _, queue := range []string{"orders", "Billing", longest, `of "ours"`} {
		must(t, c.CreateQueue(ctx, queue))
	}
	must(t, c.CreateQueue(ctx, "quick", pgmq.Unlogged()))
	for n := range 4 {
		_, err := c.Send(ctx, "orders", pgmq.Outgoing{
			Body: fmt.Appendf(nil, `{"n": %d}`, n+1), Headers: []byte(`{"x-pgmq-group": "g"}`),
		})
		must(t, err)
	}
	_, err := c.Send(ctx, "orders", pgmq.Outgoing{}, pgmq.VisibleIn(time.Hour))
	must(t, err)
	_, err = c.Read(ctx, "orders", time.Hour)
	must(t, err)
	_, err = c.Archive(ctx, "orders", 2)
	must(t, err)
	for _, queue := range []string{"Billing", longest, `of "ours"`, "quick"} {
		_, err := c.SendBatch(ctx, queue, []pgmq.Outgoing{{Body: []byte(`"\u00e9"`)}, {Headers: []byte(`{}`)}})
		must(t, err)
	}
	must(t, c.BindTopic(ctx, "orders.*", "orders"))
	must(t, c.BindTopic(ctx, "#", "Billing"))
	must(t, c.BindTopic(ctx, "orders.placed", "quick"))
	must(t, c.EnableNotify(ctx, "orders", 0))
	must(t, c.EnableNotify(ctx, "Billing", time.Minute))
	must(t, c.IndexGroups(ctx, "orders"))
	// A role that every server has.
	must(t, c.Grant(ctx, "pg_read_server_files", pgmq.Publish("orders"), pgmq.Consume("Billing")))
	if offered := values[bool](t, d, `select exists (select from pg_available_extensions where name = 'pg_partman')`); offered[0] {
		run(t, d, `create extension pg_partman`)
		must(t, c.CreateQueue(ctx, "parts", pgmq.Partitioned(pgmq.Messages(10), pgmq.Messages(100), 2)))
		must(t, c.CreateQueue(ctx, "converted"))
		must(t, c.ConvertArchive(ctx, "converted", pgmq.Messages(10), pgmq.Messages(100), 2))
	}
}

// requireWorks expects what fill has left.
func requireWorks(t testing.TB, d *pgmqtest.Database) {
	t.Helper()
	ctx, c := t.Context(), pgmq.New(d.Pool)
	if msgs, err := c.Read(ctx, "orders", 0, pgmq.Limit(9), pgmq.Grouped(pgmq.Fill)); err != nil || len(msgs) > 0 {
		t.Errorf("the group whose first message is in flight: %v, %v", msgs, err)
	}
	msgs, err := c.Read(ctx, "orders", time.Hour, pgmq.Limit(9))
	if err != nil || len(msgs) != 2 || msgs[0].ID != 3 || string(msgs[0].Body) != `{"n": 3}` || msgs[1].ID != 4 {
		t.Errorf("read: %v, %v; want messages 3 and 4", msgs, err)
	}
	sent, err := c.SendTopic(ctx, "orders.placed", body(`1`))
	if want := []pgmq.Delivery{{Queue: "Billing", ID: 3}, {Queue: "orders", ID: 6}, {Queue: "quick", ID: 3}}; err != nil || !slices.Equal(sent, want) {
		t.Errorf("sent to a topic: %v, %v; want %v", sent, err, want)
	}
	if ids, err := c.Archive(ctx, "orders", 3, 4); err != nil || len(ids) != 2 {
		t.Errorf("archive: %v, %v", ids, err)
	}
	if m, err := c.Metrics(ctx, "orders"); err != nil || m.Length != 3 || m.Total != 6 {
		t.Errorf("metrics: %+v, %v", m, err)
	}
	throttles, err := c.NotifyThrottles(ctx)
	if err != nil || len(throttles) != 2 || throttles[0].Throttle != time.Minute || throttles[1].Throttle != 0 {
		t.Errorf("throttles: %v, %v", throttles, err)
	}
	queues, err := c.Queues(ctx)
	must(t, err)
	for _, queue := range queues {
		if dropped, err := c.DropQueue(ctx, queue.Name); err != nil || !dropped {
			t.Errorf("drop of %q: %v, %v", queue.Name, dropped, err)
		}
	}
	must(t, c.CreateQueue(ctx, "orders"))
}

// catalog describes everything in the schema, but for the ledger's rows.
func catalog(t testing.TB, d *pgmqtest.Database) []string {
	t.Helper()
	return values[string](t, d, `
		with relation as (
			select r.* from pg_class as r where r.relnamespace = 'pgmq'::regnamespace
		)
		select format('schema %s %s', n.nspacl, obj_description(n.oid)) from pg_namespace as n where n.nspname = 'pgmq'
		union all
		select format('relation %s %s %s %s %s %s %s', r.relname, r.relkind, r.relpersistence, r.reloptions, r.relacl,
			pg_get_expr(r.relpartbound, r.oid), obj_description(r.oid))
		from relation as r
		union all
		select format('column %s.%s %s %s %s %s %s %s %s', r.relname, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod),
			a.attnotnull, a.attidentity, a.attgenerated, a.attacl, pg_get_expr(e.adbin, e.adrelid))
		from relation as r
		join pg_attribute as a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
		left join pg_attrdef as e on e.adrelid = r.oid and e.adnum = a.attnum
		union all
		select pg_get_indexdef(r.oid) from relation as r where r.relkind in ('i', 'I')
		union all
		select format('%s: %s', r.relname, pg_get_constraintdef(c.oid)) from relation as r join pg_constraint as c on c.conrelid = r.oid
		union all
		select pg_get_triggerdef(g.oid) from relation as r join pg_trigger as g on g.tgrelid = r.oid and not g.tgisinternal
		union all
		select format('%s %s', p.proacl, pg_get_functiondef(p.oid)) from pg_proc as p where p.pronamespace = 'pgmq'::regnamespace
		order by 1`)
}

// data is every row of every table, but for those of the ledger: a JSON object with the table's name.
func data(t testing.TB, d *pgmqtest.Database) []string {
	t.Helper()
	return values[string](t, d, `
		select xml.row::text
		from pg_class as r
		cross join lateral unnest(xpath('/table/row/line/text()', query_to_xml(
			format('select to_jsonb(q) || jsonb_build_object(''table'', %L) as line from pgmq.%I as q', r.relname, r.relname),
			false, false, ''))) as xml (row)
		where r.relnamespace = 'pgmq'::regnamespace and r.relkind in ('r', 'p') and r.relname <> '_ledger'
		order by r.relname, 1`)
}

// requireKept expects every row again, in any order; it may have new columns.
func requireKept(t testing.TB, before, after []string) {
	t.Helper()
	if len(before) < 10 || len(before) != len(after) {
		t.Fatalf("%d rows became %d", len(before), len(after))
	}
	for _, row := range before {
		had := columns(t, row)
		if !slices.ContainsFunc(after, func(row string) bool {
			has := columns(t, row)
			maps.DeleteFunc(has, func(column string, _ any) bool { _, is := had[column]; return !is })
			return reflect.DeepEqual(has, had)
		}) {
			t.Errorf("gone or changed: %s", row)
		}
	}
}

func columns(t testing.TB, row string) (all map[string]any) {
	t.Helper()
	must(t, json.Unmarshal([]byte(row), &all))
	return all
}

func requireCatalog(t testing.TB, d *pgmqtest.Database, want []string) {
	t.Helper()
	got := catalog(t, d)
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("should not be there: %s", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("lacks: %s", line)
		}
	}
}
