-- What a queue may be called, and the tables and the lock that belong to the name.

create function pgmq._refuse_name(queue_name text) returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'queue name % contains a character that is not allowed', quote_nullable(queue_name)
        using hint = 'A queue name must not contain $, ; or '' or two dashes in a row.';
end;
$$;

-- The table of a queue ('q') or of its archive ('a'). Upper and lower case share a table.
create function pgmq.format_table_name(queue_name text, prefix text) returns text
language sql immutable
return case
    when queue_name ~ '[$;'']|--' then pgmq._refuse_name(queue_name)
    else lower(prefix || '_' || queue_name)
end;

-- 47 bytes leave room, in the 63 that Postgres allows, for the names of the indexes and partitions.
create function pgmq.validate_queue_name(queue_name text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(queue_name, '') = '' then
        raise exception 'a queue name must not be empty';
    end if;
    if greatest(octet_length(queue_name), octet_length(lower(queue_name))) > 47 then
        raise exception 'queue name % is too long: % bytes', quote_literal(queue_name), octet_length(queue_name)
            using hint = 'A queue name has at most 47 bytes.';
    end if;
    perform pgmq.format_table_name(queue_name, 'q');
end;
$$;

-- Whoever creates, changes or drops a queue holds its lock until the end of the transaction. Names
-- that share a table share the lock.
create function pgmq.acquire_queue_lock(queue_name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('pgmq.' || pgmq.format_table_name(queue_name, 'q'), 0));
end;
$$;
