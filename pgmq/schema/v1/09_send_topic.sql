-- Sending to a topic: one insert for every queue that the key is bound to, each queue once whatever the
-- number of its patterns that match. Qualified like 04_send.sql, and for the same reasons.

create function pgmq._send_topic(routing_key text, msg jsonb, headers jsonb, vt timestamp with time zone)
returns integer
language plpgsql
as $$
declare
    bound_queue pg_catalog.text;
    sent integer := 0;
begin
    perform pgmq.validate_routing_key(routing_key);
    if msg is null then
        raise exception 'the message for a topic must not be null';
    end if;
    for bound_queue in
        select distinct r.queue_name from pgmq._route(routing_key) as r order by r.queue_name
    loop
        execute pgmq._insert_one(bound_queue) using vt, msg, headers;
        sent := sent operator(pg_catalog.+) 1;
    end loop;
    return sent;
end;
$$;

create function pgmq._send_batch_topic(
    routing_key text,
    msgs jsonb[],
    headers jsonb[],
    vt timestamp with time zone
) returns table (queue_name text, msg_id bigint)
language plpgsql
as $$
begin
    perform pgmq.validate_routing_key(routing_key);
    perform pgmq._validate_batch(msgs, headers);
    for queue_name in
        select distinct r.queue_name from pgmq._route(routing_key) as r order by r.queue_name
    loop
        for msg_id in execute pgmq._insert_many(queue_name) using vt, msgs, headers loop
            return next;
        end loop;
    end loop;
end;
$$;

-- The end of a delay that must not be negative.
create function pgmq._after_delay(delay integer) returns timestamp with time zone
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if delay < 0 then
        raise exception 'a delay must not be negative, this one is % seconds', delay;
    end if;
    return pgmq._after(delay);
end;
$$;

create function pgmq.send_topic(routing_key text, msg jsonb) returns integer
language plpgsql
as $$
begin
    return pgmq._send_topic(routing_key, msg, null, pg_catalog.clock_timestamp());
end;
$$;

create function pgmq.send_topic(routing_key text, msg jsonb, delay integer) returns integer
language plpgsql
as $$
begin
    return pgmq._send_topic(routing_key, msg, null, pgmq._after_delay(delay));
end;
$$;

create function pgmq.send_topic(routing_key text, msg jsonb, headers jsonb, delay integer) returns integer
language plpgsql
as $$
begin
    return pgmq._send_topic(routing_key, msg, headers, pgmq._after_delay(delay));
end;
$$;

create function pgmq.send_batch_topic(routing_key text, msgs jsonb[])
returns table (queue_name text, msg_id bigint)
language plpgsql
as $$
begin
    return query
    select s.queue_name, s.msg_id
    from pgmq._send_batch_topic(routing_key, msgs, null, pg_catalog.clock_timestamp()) as s;
end;
$$;

create function pgmq.send_batch_topic(routing_key text, msgs jsonb[], headers jsonb[])
returns table (queue_name text, msg_id bigint)
language plpgsql
as $$
begin
    return query
    select s.queue_name, s.msg_id
    from pgmq._send_batch_topic(routing_key, msgs, headers, pg_catalog.clock_timestamp()) as s;
end;
$$;

create function pgmq.send_batch_topic(routing_key text, msgs jsonb[], delay integer)
returns table (queue_name text, msg_id bigint)
language plpgsql
as $$
begin
    return query
    select s.queue_name, s.msg_id
    from pgmq._send_batch_topic(routing_key, msgs, null, pgmq._after_delay(delay)) as s;
end;
$$;

create function pgmq.send_batch_topic(routing_key text, msgs jsonb[], delay timestamp with time zone)
returns table (queue_name text, msg_id bigint)
language plpgsql
as $$
begin
    return query
    select s.queue_name, s.msg_id
    from pgmq._send_batch_topic(routing_key, msgs, null, delay) as s;
end;
$$;

create function pgmq.send_batch_topic(routing_key text, msgs jsonb[], headers jsonb[], delay integer)
returns table (queue_name text, msg_id bigint)
language plpgsql
as $$
begin
    return query
    select s.queue_name, s.msg_id
    from pgmq._send_batch_topic(routing_key, msgs, headers, pgmq._after_delay(delay)) as s;
end;
$$;

create function pgmq.send_batch_topic(routing_key text, msgs jsonb[], headers jsonb[], delay timestamp with time zone)
returns table (queue_name text, msg_id bigint)
language plpgsql
as $$
begin
    return query
    select s.queue_name, s.msg_id
    from pgmq._send_batch_topic(routing_key, msgs, headers, delay) as s;
end;
$$;
