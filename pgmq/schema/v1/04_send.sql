-- Sending. This is the hot path: a call costs one dynamic insert and little else. Every name is
-- qualified, because a search_path of its own would cost a function something for every message, and
-- a trigger that somebody put on a queue would run with it.
--
-- A message is visible from clock_timestamp() on, not from now(), the beginning of the transaction:
-- who sends and reads in one transaction reads what was sent.

-- The statement that inserts one message: $1 vt, $2 message, $3 headers.
create function pgmq._insert_one(queue_name text) returns text
language sql immutable
return format(
    $sql$
    insert into pgmq.%I (vt, message, headers)
    values ($1::timestamp with time zone, $2::pg_catalog.jsonb, $3::pg_catalog.jsonb)
    returning msg_id
    $sql$,
    pgmq.format_table_name(queue_name, 'q')
);

-- The statement that inserts many, so that their ids grow in the order of the array: $1 vt,
-- $2 messages, $3 headers. An array of headers that is null gives every message none. (Only an unnest
-- without a schema takes several arrays; the parser sees to it that it is Postgres's own.)
create function pgmq._insert_many(queue_name text) returns text
language sql immutable
return format(
    $sql$
    insert into pgmq.%I (vt, message, headers)
    select $1::timestamp with time zone, m.message, m.headers
    from unnest($2::pg_catalog.jsonb[], $3::pg_catalog.jsonb[]) with ordinality as m (message, headers, place)
    order by m.place
    returning msg_id
    $sql$,
    pgmq.format_table_name(queue_name, 'q')
);

-- The instant that a delay in seconds ends.
create function pgmq._after(delay integer) returns timestamp with time zone
language sql volatile
return clock_timestamp() + make_interval(secs => delay);

create function pgmq._validate_batch(msgs jsonb[], headers jsonb[]) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(cardinality(msgs), 0) = 0 then
        raise exception 'a batch must not be null or empty';
    end if;
    if headers is not null and cardinality(headers) <> cardinality(msgs) then
        raise exception 'a batch of % messages has % headers', cardinality(msgs), cardinality(headers)
            using hint = 'Give one element of headers for each message; an element may be null.';
    end if;
end;
$$;

create function pgmq.send(queue_name text, msg jsonb) returns setof bigint
language plpgsql rows 1
as $$
begin
    return query execute pgmq._insert_one(queue_name)
        using pg_catalog.clock_timestamp(), msg, null::pg_catalog.jsonb;
end;
$$;

create function pgmq.send(queue_name text, msg jsonb, headers jsonb) returns setof bigint
language plpgsql rows 1
as $$
begin
    return query execute pgmq._insert_one(queue_name)
        using pg_catalog.clock_timestamp(), msg, headers;
end;
$$;

create function pgmq.send(queue_name text, msg jsonb, delay integer) returns setof bigint
language plpgsql rows 1
as $$
begin
    return query execute pgmq._insert_one(queue_name)
        using pgmq._after(delay), msg, null::pg_catalog.jsonb;
end;
$$;

create function pgmq.send(queue_name text, msg jsonb, delay timestamp with time zone) returns setof bigint
language plpgsql rows 1
as $$
begin
    return query execute pgmq._insert_one(queue_name)
        using delay, msg, null::pg_catalog.jsonb;
end;
$$;

create function pgmq.send(queue_name text, msg jsonb, headers jsonb, delay integer) returns setof bigint
language plpgsql rows 1
as $$
begin
    return query execute pgmq._insert_one(queue_name)
        using pgmq._after(delay), msg, headers;
end;
$$;

create function pgmq.send(queue_name text, msg jsonb, headers jsonb, delay timestamp with time zone) returns setof bigint
language plpgsql rows 1
as $$
begin
    return query execute pgmq._insert_one(queue_name)
        using delay, msg, headers;
end;
$$;

create function pgmq.send_batch(queue_name text, msgs jsonb[]) returns setof bigint
language plpgsql
as $$
begin
    perform pgmq._validate_batch(msgs, null);
    return query execute pgmq._insert_many(queue_name)
        using pg_catalog.clock_timestamp(), msgs, null::pg_catalog.jsonb[];
end;
$$;

create function pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[]) returns setof bigint
language plpgsql
as $$
begin
    perform pgmq._validate_batch(msgs, headers);
    return query execute pgmq._insert_many(queue_name)
        using pg_catalog.clock_timestamp(), msgs, headers;
end;
$$;

create function pgmq.send_batch(queue_name text, msgs jsonb[], delay integer) returns setof bigint
language plpgsql
as $$
begin
    perform pgmq._validate_batch(msgs, null);
    return query execute pgmq._insert_many(queue_name)
        using pgmq._after(delay), msgs, null::pg_catalog.jsonb[];
end;
$$;

create function pgmq.send_batch(queue_name text, msgs jsonb[], delay timestamp with time zone) returns setof bigint
language plpgsql
as $$
begin
    perform pgmq._validate_batch(msgs, null);
    return query execute pgmq._insert_many(queue_name)
        using delay, msgs, null::pg_catalog.jsonb[];
end;
$$;

create function pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay integer) returns setof bigint
language plpgsql
as $$
begin
    perform pgmq._validate_batch(msgs, headers);
    return query execute pgmq._insert_many(queue_name)
        using pgmq._after(delay), msgs, headers;
end;
$$;

create function pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay timestamp with time zone) returns setof bigint
language plpgsql
as $$
begin
    perform pgmq._validate_batch(msgs, headers);
    return query execute pgmq._insert_many(queue_name)
        using delay, msgs, headers;
end;
$$;
