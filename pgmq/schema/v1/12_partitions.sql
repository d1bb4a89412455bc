-- Partitioned queues, kept by the extension pg_partman (4 or 5): it makes partitions ahead and drops
-- those that are older than the retention, with whatever is in them, whenever its maintenance runs.
--
-- An interval that is a number is one of message ids; any other is one of time, and is counted from
-- the sending in a queue, from the archiving in an archive.

create function pgmq._is_partitioned(table_name text) returns boolean
language sql stable
begin atomic
    select exists (
        select
        from pg_partitioned_table as t
        where t.partrelid = to_regclass(format('pgmq.%I', table_name))
    );
end;

-- The partition for what has none of its own. Null for a table that is not partitioned.
create function pgmq._default_partition(table_name text) returns oid
language sql stable
begin atomic
    select t.partdefid
    from pg_partitioned_table as t
    where t.partrelid = to_regclass(format('pgmq.%I', table_name));
end;

-- The schema of pg_partman.
create function pgmq._partman() returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    schema_name text;
begin
    select n.nspname
    into schema_name
    from pg_extension as e
    join pg_namespace as n on n.oid = e.extnamespace
    where e.extname = 'pg_partman';
    if not found then
        raise exception 'partitioned queues need the extension pg_partman, which is not installed'
            using hint = 'Install it with: create extension pg_partman';
    end if;
    return schema_name;
end;
$$;

-- Whether an interval is one of ids. Both intervals of a queue have to be of one kind.
create function pgmq._partition_by_id(partition_interval text, retention_interval text) returns boolean
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
    by_id constant boolean := partition_interval ~ '^[0-9]+$';
begin
    if partition_interval is null or retention_interval is null then
        raise exception 'the partition interval and the retention interval must not be null';
    end if;
    if by_id <> (retention_interval ~ '^[0-9]+$') then
        raise exception 'partition interval % and retention interval % differ in kind',
            quote_literal(partition_interval), quote_literal(retention_interval)
            using hint = 'Both are numbers of messages, or both are spans of time.';
    end if;
    if not by_id then
        perform retention_interval::interval;
    elsif partition_interval::numeric = 0 then
        raise exception 'the partition interval must not be 0';
    end if;
    return by_id;
exception
    when invalid_datetime_format or datetime_field_overflow then
        raise exception 'retention interval % is not a span of time', quote_literal(retention_interval);
end;
$$;

-- Hands a partitioned table over to pg_partman.
create function pgmq._manage_partitions(
    table_name text,
    partition_key text,
    partition_interval text,
    retention_interval text,
    premake integer,
    first_value text
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    partman constant text := pgmq._partman();
    parent_table constant text := 'pgmq.' || table_name;
begin
    execute format(
        $sql$
        select %1$I.create_parent(
            p_parent_table => $1::text,
            p_control => $2::text,
            p_interval => $3::text,
            p_type => $4::text,
            p_premake => $5::integer,
            p_start_partition => $6::text
        )
        $sql$,
        partman
    )
    using parent_table, partition_key, partition_interval, pgmq._partman_type(), premake, first_value;

    -- infinite_time_partitions: a queue that nothing is sent to for a while still gets its partitions.
    execute format(
        $sql$
        update %1$I.part_config
        set retention = $2::text,
            retention_keep_table = false,
            infinite_time_partitions = true,
            automatic_maintenance = 'on'
        where parent_table = $1::text
        $sql$,
        partman
    )
    using parent_table, retention_interval;
end;
$$;

-- What pg_partman calls the partitioning that Postgres itself has.
create function pgmq._partman_type() returns text
language sql stable
begin atomic
    select case when split_part(e.extversion, '.', 1)::integer < 5 then 'native' else 'range' end
    from pg_extension as e
    where e.extname = 'pg_partman';
end;

-- Takes a table out of pg_partman's books, and drops the template it made for the partitions.
create function pgmq._forget_partitions(table_name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    template regclass;
begin
    execute format(
        $sql$
        delete from %1$I.part_config
        where parent_table = $1::text
        returning to_regclass(template_table)
        $sql$,
        pgmq._partman()
    ) into template using 'pgmq.' || table_name;
    if template is not null then
        execute format('drop table %s', template);
    end if;
end;
$$;

create function pgmq.create_partitioned(
    queue_name text,
    partition_interval text default '10000',
    retention_interval text default '100000',
    premake integer default 4
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    queue_table constant text := pgmq.format_table_name(queue_name, 'q');
    archive_table constant text := pgmq.format_table_name(queue_name, 'a');
    by_id boolean;
    queue_key text;
    archive_key text;
begin
    perform pgmq.validate_queue_name(queue_name);
    if strpos(queue_name, '.') > 0 then
        raise exception 'queue name % contains a dot', quote_literal(queue_name)
            using hint = 'pg_partman takes what follows a dot for the name of the table.';
    end if;
    perform pgmq._partman();
    by_id := pgmq._partition_by_id(partition_interval, retention_interval);
    queue_key := case when by_id then 'msg_id' else 'enqueued_at' end;
    archive_key := case when by_id then 'msg_id' else 'archived_at' end;

    perform pgmq.acquire_queue_lock(queue_name);
    if to_regclass(format('pgmq.%I', queue_table)) is not null then
        raise exception 'queue % exists already', quote_literal(queue_name);
    end if;
    perform pgmq._create_tables(queue_name, false, queue_key, archive_key);
    perform pgmq._register(queue_name, true, false);
    perform pgmq._manage_partitions(queue_table, queue_key, partition_interval, retention_interval, premake, null);
    perform pgmq._manage_partitions(archive_table, archive_key, partition_interval, retention_interval, premake, null);
end;
$$;

-- Puts a partitioned archive in the place of a queue's archive, which is kept under the name
-- a_<name>_old: what it holds stays there.
create function pgmq.convert_archive_partitioned(
    table_name text,
    partition_interval text default '10000',
    retention_interval text default '100000',
    leading_partition integer default 10
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    queue_table constant text := pgmq.format_table_name(table_name, 'q');
    archive_table constant text := pgmq.format_table_name(table_name, 'a');
    by_id constant boolean := pgmq._partition_by_id(partition_interval, retention_interval);
    archive_key constant text := case when by_id then 'msg_id' else 'archived_at' end;
    first_id bigint;
begin
    perform pgmq.acquire_queue_lock(table_name);
    if pgmq._is_partitioned(archive_table) then
        raise notice 'archive % is partitioned already', quote_literal(archive_table);
        return;
    end if;

    execute format('alter table pgmq.%I rename to %I', archive_table, archive_table || '_old');
    execute format('alter index pgmq.%I rename to %I', archive_table || '_pkey', archive_table || '_old_pkey');
    execute format(
        'alter index pgmq.%I rename to %I',
        'archived_at_idx_' || lower(table_name),
        'archived_at_idx_' || lower(table_name) || '_old'
    );
    perform pgmq._create_tables(table_name, archive_key => archive_key);

    -- Partitions of ids begin where the queue is, not at the beginning of time.
    if by_id then
        execute format('select min(q.msg_id) from pgmq.%I as q', queue_table) into first_id;
        first_id := greatest(1, coalesce(first_id, pgmq._total_messages(format('pgmq.%I', queue_table))));
    end if;
    perform pgmq._manage_partitions(
        archive_table, archive_key, partition_interval, retention_interval, leading_partition, first_id::text
    );
end;
$$;
