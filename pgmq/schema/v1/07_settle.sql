-- Settling: move the visibility timeout, delete, archive.

create function pgmq.set_vt(queue_name text, msg_ids bigint[], vt timestamp with time zone)
returns setof pgmq.message_record
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return query execute format(
        $sql$
        update pgmq.%I as q
        set vt = $2::timestamp with time zone
        where q.msg_id = any ($1::bigint[])
        returning q.msg_id, q.read_ct, q.enqueued_at, q.last_read_at, q.vt, q.message, q.headers
        $sql$,
        pgmq.format_table_name(queue_name, 'q')
    ) using msg_ids, vt;
end;
$$;

create function pgmq.set_vt(queue_name text, msg_ids bigint[], vt integer)
returns setof pgmq.message_record
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select m.msg_id, m.read_ct, m.enqueued_at, m.last_read_at, m.vt, m.message, m.headers
    from pgmq.set_vt(queue_name, msg_ids, pgmq._after(vt)) as m;
end;
$$;

create function pgmq.set_vt(queue_name text, msg_id bigint, vt timestamp with time zone)
returns setof pgmq.message_record
language plpgsql rows 1
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select m.msg_id, m.read_ct, m.enqueued_at, m.last_read_at, m.vt, m.message, m.headers
    from pgmq.set_vt(queue_name, array[msg_id], vt) as m;
end;
$$;

create function pgmq.set_vt(queue_name text, msg_id bigint, vt integer)
returns setof pgmq.message_record
language plpgsql rows 1
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select m.msg_id, m.read_ct, m.enqueued_at, m.last_read_at, m.vt, m.message, m.headers
    from pgmq.set_vt(queue_name, array[msg_id], pgmq._after(vt)) as m;
end;
$$;

create function pgmq.delete(queue_name text, msg_ids bigint[]) returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return query execute format(
        $sql$
        delete from pgmq.%I as q
        where q.msg_id = any ($1::bigint[])
        returning q.msg_id
        $sql$,
        pgmq.format_table_name(queue_name, 'q')
    ) using msg_ids;
end;
$$;

create function pgmq.delete(queue_name text, msg_id bigint) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    deleted bigint;
begin
    execute format(
        $sql$
        delete from pgmq.%I as q
        where q.msg_id = $1::bigint
        returning q.msg_id
        $sql$,
        pgmq.format_table_name(queue_name, 'q')
    ) into deleted using msg_id;
    return deleted is not null;
end;
$$;

create function pgmq.archive(queue_name text, msg_ids bigint[]) returns setof bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return query execute format(
        $sql$
        with taken as (
            delete from pgmq.%I as q
            where q.msg_id = any ($1::bigint[])
            returning q.msg_id, q.read_ct, q.enqueued_at, q.last_read_at, q.vt, q.message, q.headers
        )
        insert into pgmq.%I as a (msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers)
        select t.msg_id, t.read_ct, t.enqueued_at, t.last_read_at, t.vt, t.message, t.headers
        from taken as t
        returning a.msg_id
        $sql$,
        pgmq.format_table_name(queue_name, 'q'),
        pgmq.format_table_name(queue_name, 'a')
    ) using msg_ids;
end;
$$;

create function pgmq.archive(queue_name text, msg_id bigint) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return exists (select from pgmq.archive(queue_name, array[msg_id]));
end;
$$;
