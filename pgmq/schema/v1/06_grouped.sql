-- Reading group by group. The messages of a group are handed out in the order of their ids, and none
-- while an earlier one of the group is hidden: in flight, delayed, or waiting for its retry.
--
-- The group is the header x-pgmq-group; messages without it are one group, too. Only its first 200
-- characters count, so that it always fits into an index: groups that agree in so much are one. Text
-- is compared byte by byte, which is fast and does not change with the operating system.

create function pgmq._group_key(headers jsonb) returns text
language sql immutable
return left(coalesce(headers ->> 'x-pgmq-group', ''), 200);

-- Whether the queue has an index by which grouped reads find their way: create_fifo_index makes it, or the
-- Go client of this project, which can do so without locking senders out, under a name of its own.
create function pgmq._has_fifo_index(queue_name text) returns boolean
language sql stable
begin atomic
    select exists (
        select
        from pg_index as x
        join pg_class as i on i.oid = x.indexrelid
        join pg_am as a on a.oid = i.relam
        where x.indrelid = to_regclass(format('pgmq.%I', pgmq.format_table_name(queue_name, 'q')))
            and i.relname::text in (
                pgmq.format_table_name(queue_name, 'q') || '_fifo_idx',
                pgmq.format_table_name(queue_name, 'q') || '_group_idx'
            )
            and a.amname = 'btree'
            and x.indisvalid
    );
end;

-- Lets grouped reads jump from group to group. They are right without it, but look at every message.
-- The expression is that of _group_key, spelled out: the table shall not depend on our functions.
create function pgmq.create_fifo_index(queue_name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pgmq.acquire_queue_lock(queue_name);
    if pgmq._has_fifo_index(queue_name) then
        return;
    end if;
    execute format(
        $sql$
        create index %I on pgmq.%I (
            (left(coalesce(headers ->> 'x-pgmq-group', ''), 200)) collate "C",
            msg_id
        )
        $sql$,
        pgmq.format_table_name(queue_name, 'q') || '_fifo_idx',
        pgmq.format_table_name(queue_name, 'q')
    );
end;
$$;

create function pgmq.create_fifo_indexes_all() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    queue record;
begin
    for queue in select m.queue_name from pgmq.meta as m order by m.queue_name loop
        perform pgmq.create_fifo_index(queue.queue_name);
    end loop;
end;
$$;

-- The steps of a grouped read that find the head of every group, its first message, oldest first.
--
-- With the index:
--   beginning   the first visible messages of the queue
--   near        those of them that are the head of their group. Usually they are enough.
--   all_heads   the head of every group, found by jumping from group to group. It is asked only for what
--               is missing then: many messages at the beginning belong to groups that are blocked.
-- "Between", where an equality would do, keeps the planner from walking the primary key in search of a
-- group that it takes to be frequent.
--
-- Without the index a look at every message finds them all at once.
create function pgmq._head_steps(queue_name text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return format(
        case when pgmq._has_fifo_index(queue_name) then
            $sql$
            beginning as (
                select m.msg_id, pgmq._group_key(m.headers) collate "C" as group_key
                from pgmq.%1$I as m
                where m.vt <= $1::timestamp with time zone
                order by m.msg_id
                limit $3::bigint * 4 + 100
            ),
            near as (
                select b.msg_id, b.group_key
                from beginning as b
                where b.msg_id = (
                    select m.msg_id
                    from pgmq.%1$I as m
                    where pgmq._group_key(m.headers) collate "C" between b.group_key and b.group_key
                    order by pgmq._group_key(m.headers) collate "C", m.msg_id
                    limit 1
                )
            ),
            all_heads as (
                (
                    select m.msg_id, pgmq._group_key(m.headers) collate "C" as group_key
                    from pgmq.%1$I as m
                    order by group_key, m.msg_id
                    limit 1
                )
                union all
                select following.msg_id, following.group_key
                from all_heads as h
                cross join lateral (
                    select m.msg_id, pgmq._group_key(m.headers) collate "C" as group_key
                    from pgmq.%1$I as m
                    where pgmq._group_key(m.headers) collate "C" > h.group_key
                    order by group_key, m.msg_id
                    limit 1
                ) as following
            ),
            candidates as (
                select n.msg_id, n.group_key from near as n
                union all
                (
                    select h.msg_id, h.group_key
                    from all_heads as h
                    where h.msg_id > (select max(b.msg_id) from beginning as b)
                    order by h.msg_id
                )
            )
            $sql$
        else
            $sql$
            candidates as (
                select min(m.msg_id) as msg_id, pgmq._group_key(m.headers) collate "C" as group_key
                from pgmq.%1$I as m
                group by group_key
                order by msg_id
            )
            $sql$
        end,
        pgmq.format_table_name(queue_name, 'q')
    );
end;
$$;

-- All grouped reads are this one statement. What differs is
--   most_heads  how many groups are looked for, null for as many as are needed to fill the batch
--   depth       how many messages are taken of one group, an expression
--   pick        which of the messages found are taken, and in which order
--   result      the order of the result
--
-- The query works through these steps, each fed by the one before it and only as far as the next one
-- asks, so that a group that is not needed is neither looked for nor locked:
--   candidates  the head of every group, oldest first (_head_steps)
--   heads       those that are visible and that nobody else has locked
--   flow        of each such group, the messages up to the first hidden one; turn counts them
--   locked      those of them that are still visible and that nobody else has locked
--   unbroken    of each group, those before which nothing is missing
--
-- Why the order of a group holds among concurrent readers, in read committed. All steps see the queue
-- as it was when the statement began; but what "for update" locks is checked in its newest version
-- ("m.vt <= $1"), and locked rows stay as they are to the end of the transaction. A message is taken
-- only if it and every earlier message of its group were locked and found visible. So at the moment of
-- the last lock they all exist, visible, and are ours. For example, group a has the messages 1, 2, 3:
--   reader A                          reader B
--                                     begins, sees 1, 2, 3 visible
--   takes 1 and 2, commits
--                                     1 is hidden in its newest version: not locked; nothing of a is taken
-- Or, when a message was given back in between:
--   takes 1 and 2, commits            begins before that, sees 1, 2, 3 visible
--   gives 1 back, commits
--                                     locks 1, which is visible again; 2 is not. 2 is missing before 3:
--                                     takes 1 alone
-- Or, when the transaction that sent 1 commits late:
--   begins, sees 2 and 3, locks 2
--                                     begins, sees 1, 2, 3; locks 1; 2 is locked: takes 1 alone
-- That 1 and 2 are then in flight together is no fault of the reader's: there was no 1 to wait for.
--
-- Locks are those of rows, never of group names, so that queues with the same groups do not meet; and
-- a reader steps over groups that another one holds, so that it gets the next ones instead of nothing.
create function pgmq._read_grouped(
    queue_name text,
    vt integer,
    qty integer,
    most_heads integer,
    depth text,
    pick text,
    result text
) returns setof pgmq.message_record
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
    moment constant timestamp with time zone := clock_timestamp();
begin
    return query execute format(
        $sql$
        with recursive
        %2$s,
        heads as materialized (
            select c.msg_id, c.group_key
            from candidates as c
            cross join lateral (
                select
                from pgmq.%1$I as m
                where m.msg_id = c.msg_id
                    and m.vt <= $1::timestamp with time zone
                for update skip locked
            ) as locked
            limit $4::integer
        ),
        flow as materialized (
            select h.msg_id as head, f.msg_id, f.turn
            from heads as h
            cross join lateral (
                select
                    g.msg_id,
                    row_number() over in_order as turn,
                    bool_and(g.vt <= $1::timestamp with time zone) over in_order as flows
                from (
                    select m.msg_id, m.vt
                    from pgmq.%1$I as m
                    where pgmq._group_key(m.headers) collate "C" between h.group_key and h.group_key
                    order by pgmq._group_key(m.headers) collate "C", m.msg_id
                    limit %3$s
                ) as g
                window in_order as (order by g.msg_id)
            ) as f
            where f.flows
            %4$s
            limit $3::integer
        ),
        locked as materialized (
            select m.msg_id
            from pgmq.%1$I as m
            where m.msg_id = any (array(select f.msg_id from flow as f))
                and m.vt <= $1::timestamp with time zone
            for update skip locked
        ),
        unbroken as materialized (
            select h.head, h.msg_id, h.turn
            from (
                select f.head, f.msg_id, f.turn, count(l.msg_id) over (partition by f.head order by f.turn) as held
                from flow as f
                left join locked as l on l.msg_id = f.msg_id
            ) as h
            where h.held = h.turn
        ),
        taken as (
            update pgmq.%1$I as q
            set read_ct = q.read_ct + 1,
                last_read_at = $1::timestamp with time zone,
                vt = $2::timestamp with time zone
            where q.msg_id = any (array(select u.msg_id from unbroken as u))
            returning q.msg_id, q.read_ct, q.enqueued_at, q.last_read_at, q.vt, q.message, q.headers
        )
        select t.msg_id, t.read_ct, t.enqueued_at, t.last_read_at, t.vt, t.message, t.headers
        from taken as t
        join unbroken as u on u.msg_id = t.msg_id
        order by %5$s
        $sql$,
        pgmq.format_table_name(queue_name, 'q'),
        pgmq._head_steps(queue_name),
        depth,
        pick,
        result
    ) using moment, moment + make_interval(secs => vt), qty, most_heads;
end;
$$;

-- Fills the batch from the oldest group, then from the next.
create function pgmq.read_grouped(queue_name text, vt integer, qty integer) returns setof pgmq.message_record
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Without a sort in pick: it would lock every group to put them into the order they come in anyway.
    return query
    select m.msg_id, m.read_ct, m.enqueued_at, m.last_read_at, m.vt, m.message, m.headers
    from pgmq._read_grouped(
        queue_name, vt, qty,
        most_heads => null,
        depth => '$3::integer',
        pick => '',
        result => 'u.head, u.turn'
    ) as m;
end;
$$;

-- Takes the groups in turns: the first of each, then the second of each. A group is asked for no more
-- than remains when every other group gives one.
create function pgmq.read_grouped_rr(queue_name text, vt integer, qty integer) returns setof pgmq.message_record
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select m.msg_id, m.read_ct, m.enqueued_at, m.last_read_at, m.vt, m.message, m.headers
    from pgmq._read_grouped(
        queue_name, vt, qty,
        most_heads => qty,
        depth => '(select 1 + $3::integer - count(*) from heads)',
        pick => 'order by f.turn, h.msg_id',
        result => 'u.turn, u.head'
    ) as m;
end;
$$;

-- Takes one of each group.
create function pgmq.read_grouped_head(queue_name text, vt integer, qty integer) returns setof pgmq.message_record
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select m.msg_id, m.read_ct, m.enqueued_at, m.last_read_at, m.vt, m.message, m.headers
    from pgmq._read_grouped(
        queue_name, vt, qty,
        most_heads => qty,
        depth => '1',
        pick => '',
        result => 'u.msg_id'
    ) as m;
end;
$$;

create function pgmq.read_grouped_with_poll(
    queue_name text,
    vt integer,
    qty integer,
    max_poll_seconds integer default 5,
    poll_interval_ms integer default 100
) returns setof pgmq.message_record
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    deadline constant timestamp with time zone := clock_timestamp() + make_interval(secs => max_poll_seconds);
begin
    loop
        return query
        select r.msg_id, r.read_ct, r.enqueued_at, r.last_read_at, r.vt, r.message, r.headers
        from pgmq.read_grouped(queue_name, vt, qty) as r;
        exit when found or not pgmq._wait(deadline, poll_interval_ms);
    end loop;
end;
$$;

create function pgmq.read_grouped_rr_with_poll(
    queue_name text,
    vt integer,
    qty integer,
    max_poll_seconds integer default 5,
    poll_interval_ms integer default 100
) returns setof pgmq.message_record
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    deadline constant timestamp with time zone := clock_timestamp() + make_interval(secs => max_poll_seconds);
begin
    loop
        return query
        select r.msg_id, r.read_ct, r.enqueued_at, r.last_read_at, r.vt, r.message, r.headers
        from pgmq.read_grouped_rr(queue_name, vt, qty) as r;
        exit when found or not pgmq._wait(deadline, poll_interval_ms);
    end loop;
end;
$$;

create function pgmq.read_grouped_head_with_poll(
    queue_name text,
    vt integer,
    qty integer,
    max_poll_seconds integer default 5,
    poll_interval_ms integer default 100
) returns setof pgmq.message_record
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    deadline constant timestamp with time zone := clock_timestamp() + make_interval(secs => max_poll_seconds);
begin
    loop
        return query
        select r.msg_id, r.read_ct, r.enqueued_at, r.last_read_at, r.vt, r.message, r.headers
        from pgmq.read_grouped_head(queue_name, vt, qty) as r;
        exit when found or not pgmq._wait(deadline, poll_interval_ms);
    end loop;
end;
$$;
