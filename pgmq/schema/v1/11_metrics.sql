-- Metrics: what waits in a queue.

-- Exact, and so as slow as the queue is long. Only a partitioned queue has default partitions, one of its
-- own and one of its archive; a message in them says that pg_partman's maintenance does not keep up. Of the
-- archive's the server's statistics have to do.
create function pgmq.metrics(queue_name text) returns pgmq.metrics_result
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    queue_table constant text := format('pgmq.%I', pgmq.format_table_name(queue_name, 'q'));
    default_partition constant oid := pgmq._default_partition(pgmq.format_table_name(queue_name, 'q'));
    result pgmq.metrics_result;
begin
    result.queue_name := queue_name;
    result.scrape_time := clock_timestamp();
    result.total_messages := pgmq._total_messages(queue_table);
    execute format(
        $sql$
        select
            count(*),
            extract(epoch from $1::timestamp with time zone - max(q.enqueued_at))::integer,
            extract(epoch from $1::timestamp with time zone - min(q.enqueued_at))::integer,
            count(*) filter (where q.vt <= $1::timestamp with time zone),
            count(*) filter (where q.tableoid = $2::oid)
        from %s as q
        $sql$,
        queue_table
    )
    into
        result.queue_length,
        result.newest_msg_age_sec,
        result.oldest_msg_age_sec,
        result.queue_visible_length,
        result.default_partition_length
    using result.scrape_time, default_partition;
    if default_partition is null then
        result.default_partition_length := null;
    else
        result.default_partition_length := result.default_partition_length
            + coalesce(pg_stat_get_live_tuples(pgmq._default_partition(pgmq.format_table_name(queue_name, 'a'))), 0);
    end if;
    return result;
end;
$$;

create function pgmq.metrics_all() returns setof pgmq.metrics_result
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    queue record;
begin
    for queue in select m.queue_name from pgmq.meta as m order by m.queue_name loop
        return next pgmq.metrics(queue.queue_name);
    end loop;
end;
$$;

-- The same at a price that does not grow with the queue. Lengths are exact below 10,000 and beyond it
-- estimates, by what Postgres counts anyway; the ages are those of the first and the last message;
-- the default partition is not looked at.
create function pgmq._metrics_estimate(queue_name text) returns pgmq.metrics_result
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    queue_table constant text := format('pgmq.%I', pgmq.format_table_name(queue_name, 'q'));
    most constant integer := 10000;
    hidden bigint;
    result pgmq.metrics_result;
begin
    result.queue_name := queue_name;
    result.scrape_time := clock_timestamp();
    result.total_messages := pgmq._total_messages(queue_table);
    execute format(
        $sql$
        select
            (select count(*) from (select from %1$s as q limit $2::integer) as counted),
            (
                select extract(epoch from $1::timestamp with time zone - q.enqueued_at)::integer
                from %1$s as q
                order by q.msg_id desc
                limit 1
            ),
            (
                select extract(epoch from $1::timestamp with time zone - q.enqueued_at)::integer
                from %1$s as q
                order by q.msg_id
                limit 1
            ),
            (
                select count(*)
                from (
                    select from %1$s as q where q.vt <= $1::timestamp with time zone limit $2::integer
                ) as counted
            ),
            (
                select count(*)
                from (
                    select from %1$s as q where q.vt > $1::timestamp with time zone limit $2::integer
                ) as counted
            )
        $sql$,
        queue_table
    )
    into
        result.queue_length,
        result.newest_msg_age_sec,
        result.oldest_msg_age_sec,
        result.queue_visible_length,
        hidden
    using result.scrape_time, most;

    if result.queue_length = most then
        select greatest(most, sum(pg_stat_get_live_tuples(t.relid)))
        into result.queue_length
        from (
            select queue_table::regclass::oid as relid
            union all
            select i.inhrelid from pg_inherits as i where i.inhparent = queue_table::regclass
        ) as t;
    end if;
    if result.queue_visible_length = most then
        result.queue_visible_length := greatest(most, result.queue_length - hidden);
    end if;
    return result;
end;
$$;

-- How many messages were ever sent: ids are given out in one sequence.
create function pgmq._total_messages(queue_table text) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    total bigint;
begin
    execute format(
        'select case when s.is_called then s.last_value else 0 end from %s as s',
        pg_get_serial_sequence(queue_table, 'msg_id')
    ) into total;
    return total;
end;
$$;
