-- Reading without regard to groups.
--
-- The inner select locks what it finds and steps over what others have locked, so that readers do not
-- wait for each other. A message that another reader took between this statement's snapshot and its
-- lock is looked at once more in its newest version, and left alone because its vt has moved on.
--
-- The outer statement finds the rows by "= any (array)" and not by a join: a join may become a scan of
-- the whole table, dead rows included, when the planner's idea of the table is old.

create function pgmq.read(queue_name text, vt integer, qty integer, conditional jsonb default '{}')
returns setof pgmq.message_record
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    moment constant timestamp with time zone := clock_timestamp();
begin
    return query execute format(
        $sql$
        update pgmq.%1$I as q
        set read_ct = q.read_ct + 1,
            last_read_at = $1::timestamp with time zone,
            vt = $2::timestamp with time zone
        where q.msg_id = any (array(
            select m.msg_id
            from pgmq.%1$I as m
            where m.vt <= $1::timestamp with time zone %2$s
            order by m.msg_id
            limit $3::integer
            for update skip locked
        ))
        returning q.msg_id, q.read_ct, q.enqueued_at, q.last_read_at, q.vt, q.message, q.headers
        $sql$,
        pgmq.format_table_name(queue_name, 'q'),
        case when conditional <> '{}' then 'and m.message @> $4::jsonb' end
    ) using moment, moment + make_interval(secs => vt), qty, conditional;
end;
$$;

-- Takes messages off the queue for good.
create function pgmq.pop(queue_name text, qty integer default 1)
returns setof pgmq.message_record
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return query execute format(
        $sql$
        delete from pgmq.%1$I as q
        where q.msg_id = any (array(
            select m.msg_id
            from pgmq.%1$I as m
            where m.vt <= $1::timestamp with time zone
            order by m.msg_id
            limit $2::integer
            for update skip locked
        ))
        returning q.msg_id, q.read_ct, q.enqueued_at, q.last_read_at, q.vt, q.message, q.headers
        $sql$,
        pgmq.format_table_name(queue_name, 'q')
    ) using clock_timestamp(), qty;
end;
$$;

-- Waits for the next attempt of a poll, at most until its deadline. False: there is no time left.
create function pgmq._wait(deadline timestamp with time zone, poll_interval_ms integer) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    seconds constant double precision := extract(epoch from deadline - clock_timestamp());
begin
    if seconds <= 0 then
        return false;
    end if;
    perform pg_sleep(least(seconds, greatest(poll_interval_ms, 1) / 1000.0));
    return true;
end;
$$;

-- Each attempt is a read of its own: the time spent waiting does not count against the vt. The whole
-- call is one transaction, which holds its connection and keeps vacuum from removing what is deleted
-- meanwhile; who can, polls from outside.
create function pgmq.read_with_poll(
    queue_name text,
    vt integer,
    qty integer,
    max_poll_seconds integer default 5,
    poll_interval_ms integer default 100,
    conditional jsonb default '{}'
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
        from pgmq.read(queue_name, vt, qty, conditional) as r;
        exit when found or not pgmq._wait(deadline, poll_interval_ms);
    end loop;
end;
$$;
