-- Queues: create, list, purge, drop.

-- _create_tables makes the table of a queue and the table of its archive, unless they are there. It
-- is the one place that knows their columns, indexes, storage parameters and grants.
--
-- queue_key and archive_key are the columns that a partitioned queue is partitioned by, else null.
create function pgmq._create_tables(
    queue_name text,
    is_unlogged boolean default false,
    queue_key text default null,
    archive_key text default null
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    queue_table constant text := pgmq.format_table_name(queue_name, 'q');
    archive_table constant text := pgmq.format_table_name(queue_name, 'a');
    msg_ids text;
begin
    if to_regclass(format('pgmq.%I', queue_table)) is null then
        execute format(
            $sql$
            create %1$s table pgmq.%2$I (
                msg_id bigint generated %5$s as identity,
                read_ct integer not null default 0,
                enqueued_at timestamp with time zone not null default now(),
                last_read_at timestamp with time zone,
                vt timestamp with time zone not null,
                message jsonb,
                headers jsonb,
                primary key (%3$s)
            ) %4$s
            $sql$,
            case when is_unlogged then 'unlogged' end,
            queue_table,
            pgmq._primary_key(queue_key),
            'partition by range (' || quote_ident(queue_key) || ')',
            -- pg_partman moves rows between partitions, and their ids with them.
            case when queue_key is null then 'always' else 'by default' end
        );
        execute format('create index %I on pgmq.%I (vt)', queue_table || '_vt_idx', queue_table);
        execute format(
            'grant select (tableoid, msg_id, read_ct, enqueued_at, last_read_at, vt) on pgmq.%I to pg_monitor',
            queue_table
        );
        msg_ids := pg_get_serial_sequence(format('pgmq.%I', queue_table), 'msg_id');
        execute format('grant select on sequence %s to pg_monitor', msg_ids);
        -- A crash empties an unlogged table. It must not begin its ids anew: the archive has them already.
        if is_unlogged and current_setting('server_version_num')::integer >= 150000 then
            execute format('alter sequence %s set logged', msg_ids);
        end if;
    end if;

    -- What is archived is kept, whether or not the queue itself survives a crash.
    if to_regclass(format('pgmq.%I', archive_table)) is null then
        execute format(
            $sql$
            create table pgmq.%1$I (
                msg_id bigint,
                read_ct integer not null default 0,
                enqueued_at timestamp with time zone not null default now(),
                last_read_at timestamp with time zone,
                archived_at timestamp with time zone not null default now(),
                vt timestamp with time zone not null,
                message jsonb,
                headers jsonb,
                primary key (%2$s)
            ) %3$s
            $sql$,
            archive_table,
            pgmq._primary_key(archive_key),
            'partition by range (' || quote_ident(archive_key) || ')'
        );
        execute format('create index %I on pgmq.%I (archived_at)', 'archived_at_idx_' || lower(queue_name), archive_table);
        execute format(
            'grant select (tableoid, msg_id, read_ct, enqueued_at, last_read_at, archived_at, vt) on pgmq.%I to pg_monitor',
            archive_table
        );
    end if;
end;
$$;

-- The primary key begins with msg_id, in whose order messages are read, and has to contain the column
-- that a table is partitioned by.
create function pgmq._primary_key(partition_key text) returns text
language sql immutable
return 'msg_id' || case when partition_key <> 'msg_id' then ', ' || quote_ident(partition_key) else '' end;

-- Creating what exists changes nothing and takes no right but to look. Twenty that create one queue
-- at once take turns at its lock, and each sees what the one before it has committed.
create function pgmq._create_queue(queue_name text, is_unlogged boolean) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pgmq.validate_queue_name(queue_name);
    perform pgmq.acquire_queue_lock(queue_name);
    perform pgmq._create_tables(queue_name, is_unlogged);
    perform pgmq._register(queue_name, false, is_unlogged);
end;
$$;

create function pgmq._register(queue_name text, is_partitioned boolean, is_unlogged boolean) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from pgmq.meta as m where m.queue_name = $1) then
        return;
    end if;
    insert into pgmq.meta as m (queue_name, is_partitioned, is_unlogged)
    values ($1, $2, $3)
    on conflict do nothing;
end;
$$;

create function pgmq.create_non_partitioned(queue_name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pgmq._create_queue(queue_name, false);
end;
$$;

create function pgmq.create_unlogged(queue_name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pgmq._create_queue(queue_name, true);
end;
$$;

create function pgmq.create(queue_name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pgmq._create_queue(queue_name, false);
end;
$$;

create function pgmq.list_queues() returns setof pgmq.queue_record
language sql stable
begin atomic
    select m.queue_name, m.is_partitioned, m.is_unlogged, m.created_at
    from pgmq.meta as m
    order by m.queue_name;
end;

-- The number it answers with is the number it removed: nothing comes or goes between the two
-- statements, because the lock is taken before the first.
create function pgmq.purge_queue(queue_name text) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    queue_table constant text := pgmq.format_table_name(queue_name, 'q');
    purged bigint;
begin
    execute format('lock table pgmq.%I in access exclusive mode', queue_table);
    execute format('select count(*) from pgmq.%I', queue_table) into purged;
    execute format('truncate table pgmq.%I', queue_table);
    return purged;
end;
$$;

-- Drops the tables and everything that is kept about the queue: its bindings and its throttle go with
-- its row in meta. Names that share the tables go together.
create function pgmq.drop_queue(queue_name text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if queue_name is null then
        return false;
    end if;
    perform pgmq.acquire_queue_lock(queue_name);
    if not exists (select from pgmq.meta as m where m.queue_name = $1) then
        raise notice 'queue % does not exist', quote_literal(queue_name);
        return false;
    end if;

    perform pgmq._drop_table(pgmq.format_table_name(queue_name, 'q'));
    perform pgmq._drop_table(pgmq.format_table_name(queue_name, 'a'));
    delete from pgmq.meta as m where lower(m.queue_name) = lower($1);
    return true;
end;
$$;

create function pgmq._drop_table(table_name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if pgmq._is_partitioned(table_name) then
        perform pgmq._forget_partitions(table_name);
    end if;
    if to_regclass(format('pgmq.%I', table_name)) is not null then
        execute format('drop table pgmq.%I', table_name);
    end if;
end;
$$;

create function pgmq.drop_queue(queue_name text, partitioned boolean) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    raise warning 'pgmq.drop_queue(queue_name, partitioned) is deprecated'
        using hint = 'Use pgmq.drop_queue(queue_name): it knows whether the queue is partitioned.';
    return pgmq.drop_queue(queue_name);
end;
$$;

create function pgmq.detach_archive(queue_name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    raise warning 'pgmq.detach_archive(queue_name) is deprecated and does nothing';
end;
$$;
