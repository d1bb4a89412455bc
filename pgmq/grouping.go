package pgmq

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// groupKeySQL is the group of a message: what PGMQ takes for it, of which only the beginning counts so
// that it always fits into an index. Text is compared byte by byte: fast, and the same everywhere.
const groupKeySQL = `(left(coalesce(headers ->> 'x-pgmq-group', ''), 200)) collate "C"`

const (
	// mostDepth bounds how many messages of one group are taken at once.
	mostDepth = 100
	// mostSteps bounds how many groups one statement looks at.
	mostSteps = 5000
)

// grouping is where a grouped reader is on its way around the groups of its queue. It goes on where it
// ended the last time, so that each group has its turn.
type grouping struct {
	leasing *leasing
	indexed atomic.Bool // whether there is the index of PrepareGroups
	depth   int         // how many messages of one group are taken at once
	after   *string     // the group after which to go on; nil: from the first one

	began    time.Time // when the way around began
	circling bool      // on the way around without having found enough
	begin    *string   // where this began
	passed   bool      // and whether the last group has been passed since then
}

// take leases up to n messages: of each group what lies at its head and is visible without a gap. It
// returns them in the order of their ids, and whether all groups have been looked at since the last time
// that there was enough.
func (g *grouping) take(ctx context.Context, n int) (leases []*Lease, drained bool, err error) {
	if !g.circling {
		g.circling, g.begin, g.passed = true, g.after, g.after == nil
		g.began = time.Now()
	}
	w, err := g.walk(ctx, n)
	if err != nil {
		return nil, false, err
	}
	g.after = w.last
	switch {
	case len(w.leases) >= n:
		g.circling = false
	case w.ended:
		g.after = nil
		drained, g.passed = g.passed, true
	case g.passed && g.begin != nil && w.last != nil && *w.last >= *g.begin:
		drained = true
	}
	g.circling = g.circling && !drained
	if w.ended {
		g.depth = min(g.depth*2, mostDepth) // few groups: not every message should cost a read
	} else {
		g.depth = max(g.depth/2, 1)
	}
	sortLeases(w.leases)
	return w.leases, drained, nil
}

// walk is what one statement found.
type walk struct {
	leases []*Lease
	last   *string // the last group that was looked at
	ended  bool    // there is none behind it
}

// walk goes from group to group, jumping on the index of PrepareGroups as soon as there is one.
//
// Two readers at the same time: both may see the same free head, but only one gets its lock, and the
// other one passes over the whole group, because of a group only what it has locked without a gap is
// taken. A reader whose snapshot is older than the other's commit finds, once it has the lock, that the
// head is hidden (the condition is checked again on the newest row) or gone, and takes nothing of that
// group either; what is behind a head that is gone is found by the next walk. So no message is taken
// while an earlier one of its group, committed before the statement began, is hidden or in somebody's
// hands.
func (g *grouping) walk(ctx context.Context, n int) (w walk, err error) {
	from := ``
	args := []any{n, g.leasing.vt.Microseconds(), (n + g.depth - 1) / g.depth, g.depth, mostSteps}
	if g.after != nil {
		from = `where ` + groupKeySQL + ` > $6::text`
		args = append(args, *g.after)
	}
	sql := indexedWalkSQL
	if !g.indexed.Load() {
		sql, g.depth, args[2] = plainWalkSQL, 1, n // of each group it takes the head
	}
	_, err = planned(ctx, g.leasing.client, operation{"read", g.leasing.queue}, func(r row) (struct{}, error) { return struct{}{}, w.scan(r) },
		fmt.Sprintf(sql, table(g.leasing.queue), groupKeySQL, from), args...)
	return w, g.leasing.client.explainLeasing(ctx, operation{"read", g.leasing.queue}, err)
}

// The parameters of a walk: messages wanted, visibility timeout in microseconds, groups wanted, messages of
// each, groups to look at; and the group to begin after.
const (
	indexedWalkSQL = jumpsSQL + headsSQL + beginningsSQL + takenSQL
	plainWalkSQL   = scanSQL + headsSQL + headsAloneSQL + takenSQL
)

// jumpsSQL is the first message of each group, found one by one on the index.
const jumpsSQL = `
	with recursive walked (group_key, msg_id, vt) as (
		(
			select %[2]s as group_key, msg_id, vt
			from %[1]s
			%[3]s
			order by group_key, msg_id
			limit 1
		)
		union all
		select following.group_key, following.msg_id, following.vt
		from walked as w
		cross join lateral (
			select %[2]s as group_key, msg_id, vt
			from %[1]s
			where %[2]s > w.group_key
			order by group_key, msg_id
			limit 1
		) as following
	),`

// scanSQL is the same without the index, by one look at every message.
const scanSQL = `
	with walked as (
		select distinct on (group_key) %[2]s as group_key, msg_id, vt
		from %[1]s
		%[3]s
		order by group_key, msg_id
	),`

// headsSQL picks the groups whose first message is visible.
const headsSQL = `
	-- the walk goes on only until enough free heads are found
	heads as materialized (
		select w.group_key, w.msg_id
		from (select group_key, msg_id, vt from walked limit $5::bigint) as w
		where w.vt <= clock_timestamp()
		limit $3::bigint
	),
	looked_at as (
		select
			case when (select count(*) from heads) < $3::bigint
				then (select max(w.group_key) from (select group_key from walked limit $5::bigint) as w)
				else (select max(group_key) from heads)
			end as last,
			case when (select count(*) from heads) < $3::bigint
				then (select count(*) from (select from walked limit $5::bigint) as w) < $5::bigint
				else false
			end as ended
	),
`

// beginningsSQL is the first messages of these groups. "Between" keeps the planner on the group's part of
// the index, however frequent it takes the group to be.
const beginningsSQL = `
	beginnings as (
		select h.group_key, m.msg_id, bool_and(m.vt <= clock_timestamp()) over (partition by h.group_key order by m.msg_id) as free
		from heads as h
		cross join lateral (
			select msg_id, vt
			from %[1]s
			where %[2]s between h.group_key and h.group_key
			order by %[2]s, msg_id
			limit $4::bigint
		) as m
	),`

// headsAloneSQL takes no more than the heads: without the index, to look for more is to look at everything.
const headsAloneSQL = `
	beginnings as (
		select group_key, msg_id, true as free
		from heads
		where $4::bigint > 0
	),`

// takenSQL leases them.
const takenSQL = `
	candidates as materialized (
		select group_key, msg_id
		from beginnings
		where free
		order by group_key, msg_id
		limit $1::bigint
	),
	locked as materialized (
		select q.msg_id
		from candidates as c
		join %[1]s as q on q.msg_id = c.msg_id
		where q.vt <= clock_timestamp()
		order by q.msg_id
		for update of q skip locked
	),
	gapless as (
		select c.group_key, c.msg_id, bool_and(l.msg_id is not null) over (partition by c.group_key order by c.msg_id) as ours
		from candidates as c
		left join locked as l on l.msg_id = c.msg_id
	),
	taken as (
		update %[1]s as q
		set vt = clock_timestamp() + $2::bigint * interval '1 microsecond',
			read_ct = q.read_ct + 1,
			last_read_at = greatest(clock_timestamp(), q.last_read_at + interval '1 microsecond')
		from gapless as g
		where q.msg_id = g.msg_id and g.ours
		returning q.msg_id, q.read_ct, q.enqueued_at, q.last_read_at, q.vt, q.message, q.headers, g.group_key
	)
	select l.last, l.ended, t.group_key, t.msg_id, t.read_ct, t.enqueued_at, t.last_read_at, t.vt, t.message, t.headers
	from looked_at as l
	left join taken as t on true`

// scan reads a row: at least one, without a message if none was taken.
func (w *walk) scan(r row) error {
	var (
		m                Message
		group            *string
		id               *int64
		reads            *int
		enqueued, vt, at *time.Time
	)
	err := r.Scan(&w.last, &w.ended, &group, &id, &reads, &enqueued, &at, &vt, (*[]byte)(&m.Body), (*[]byte)(&m.Headers))
	if err != nil || id == nil {
		return err
	}
	m.ID, m.ReadCount, m.EnqueuedAt, m.LastReadAt, m.VisibleAt = *id, *reads, *enqueued, *at, *vt
	w.leases = append(w.leases, &Lease{Message: m, group: *group})
	return nil
}
