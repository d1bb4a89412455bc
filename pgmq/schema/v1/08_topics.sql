-- Topics: which queues a routing key goes to.
--
-- A pattern is text in which * stands for one segment and # for any text, dots included. Matching is
-- by a regular expression, which is slow to evaluate for every binding there is; so an index finds the
-- few that can match at all, by the text before the first wildcard, or after the last one.

-- What a key has to begin with ('^orders.') or, for a pattern that begins with a wildcard, to end with
-- ('.created$') to match the pattern. Null for a pattern without wildcards.
create function pgmq._pattern_anchor(pattern text) returns text
language sql immutable
return case
    when pattern ~ '^[^*#]+[*#]' then '^' || substring(pattern, '^[^*#]+')
    when pattern ~ '^[*#]' then substring(pattern, '[^*#]*$') || '$'
end;

create table pgmq.topic_bindings (
    pattern text not null,
    queue_name text not null references pgmq.meta (queue_name) on delete cascade,
    bound_at timestamp with time zone not null default now(),
    compiled_regex text generated always as (
        '^' || replace(replace(replace(pattern, '.', E'\\.'), '*', '[^.]+'), '#', '.*') || '$'
    ) stored,
    primary key (pattern, queue_name)
);

create index topic_bindings_queue_name_idx on pgmq.topic_bindings (queue_name);

create index topic_bindings_anchor_idx on pgmq.topic_bindings (pgmq._pattern_anchor(pattern));

grant select on pgmq.topic_bindings to pg_monitor;

create function pgmq.validate_routing_key(routing_key text) returns boolean
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(routing_key, '') = '' then
        raise exception 'a routing key must not be empty';
    end if;
    if length(routing_key) > 255 then
        raise exception 'a routing key has at most 255 characters, this one has %', length(routing_key);
    end if;
    if routing_key ~ '[^a-zA-Z0-9._-]' then
        raise exception 'routing key % contains a character that is not allowed', quote_literal(routing_key)
            using hint = 'A routing key consists of letters and digits of ASCII, dots, dashes and underscores.';
    end if;
    if routing_key ~ '^\.|\.$|\.\.' then
        raise exception 'routing key % has an empty segment', quote_literal(routing_key)
            using hint = 'A routing key neither begins nor ends with a dot and has no two in a row.';
    end if;
    return true;
end;
$$;

create function pgmq.validate_topic_pattern(pattern text) returns boolean
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(pattern, '') = '' then
        raise exception 'a topic pattern must not be empty';
    end if;
    if length(pattern) > 255 then
        raise exception 'a topic pattern has at most 255 characters, this one has %', length(pattern);
    end if;
    if pattern ~ '[^a-zA-Z0-9._*#-]' then
        raise exception 'topic pattern % contains a character that is not allowed', quote_literal(pattern)
            using hint = 'A topic pattern consists of letters and digits of ASCII, dots, dashes, underscores, * and #.';
    end if;
    if pattern ~ '^\.|\.$|\.\.' then
        raise exception 'topic pattern % has an empty segment', quote_literal(pattern)
            using hint = 'A topic pattern neither begins nor ends with a dot and has no two in a row.';
    end if;
    if pattern ~ '[*#]{2}' then
        raise exception 'topic pattern % has two wildcards in a row', quote_literal(pattern)
            using hint = 'Write one * or one #, or put a dot between them.';
    end if;
    return true;
end;
$$;

create function pgmq.bind_topic(pattern text, queue_name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pgmq.validate_topic_pattern(pattern);
    perform pgmq._require_queue(queue_name);
    if exists (select from pgmq.topic_bindings as b where b.pattern = $1 and b.queue_name = $2) then
        return;
    end if;
    insert into pgmq.topic_bindings as b (pattern, queue_name)
    values ($1, $2)
    on conflict do nothing;
end;
$$;

create function pgmq.unbind_topic(pattern text, queue_name text) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from pgmq.topic_bindings as b
    where b.pattern = $1 and b.queue_name = $2;
    return found;
end;
$$;

create function pgmq.list_topic_bindings()
returns table (pattern text, queue_name text, bound_at timestamp with time zone, compiled_regex text)
language sql stable
begin atomic
    select b.pattern, b.queue_name, b.bound_at, b.compiled_regex
    from pgmq.topic_bindings as b
    order by b.bound_at desc, b.pattern, b.queue_name;
end;

create function pgmq.list_topic_bindings(queue_name text)
returns table (pattern text, queue_name text, bound_at timestamp with time zone, compiled_regex text)
language sql stable
begin atomic
    select b.pattern, b.queue_name, b.bound_at, b.compiled_regex
    from pgmq.topic_bindings as b
    where b.queue_name = list_topic_bindings.queue_name
    order by b.bound_at desc, b.pattern;
end;

-- The bindings that a key matches: the pattern is the key, or it has an anchor that the key begins or ends
-- with and matches. Both are looks into an index, and only what the second finds costs a regular expression.
--
-- A scan of the table is switched off: a plan made while there are few bindings is kept by its session
-- when there are many.
create function pgmq._route(routing_key text)
returns table (pattern text, queue_name text, compiled_regex text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    anchors text[];
begin
    select array_agg('^' || left(routing_key, n)) || array_agg(right(routing_key, n) || '$')
    into anchors
    from generate_series(0, length(routing_key)) as n;

    return query
    select b.pattern, b.queue_name, b.compiled_regex
    from pgmq.topic_bindings as b
    where b.pattern = routing_key
    union all
    select b.pattern, b.queue_name, b.compiled_regex
    from pgmq.topic_bindings as b
    where pgmq._pattern_anchor(b.pattern) = any (anchors)
        and routing_key ~ b.compiled_regex;
end;
$$;

create function pgmq.test_routing(routing_key text)
returns table (pattern text, queue_name text, compiled_regex text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pgmq.validate_routing_key(routing_key);
    return query
    select r.pattern, r.queue_name, r.compiled_regex
    from pgmq._route(routing_key) as r
    order by r.pattern, r.queue_name;
end;
$$;
