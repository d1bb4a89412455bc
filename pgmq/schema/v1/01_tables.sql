-- The schema, what it remembers about its queues, and the types its functions answer with.
--
-- Every function here runs with the rights of its caller. So that no object of another schema can be
-- put in front of what a function means, each one either was bound to its objects when it was created
-- (the bodies that begin with "return"), or sets its search_path, or, where messages are sent, names
-- the schema of everything it uses: there the setting would cost something for every message.
--
-- A name that begins with an underscore is not part of PGMQ and may change in any version.

do $$
begin
    -- "create schema if not exists" asks for the right to create one even if it is there.
    if to_regnamespace('pgmq') is null then
        create schema pgmq;
    end if;
    -- Where somebody else has created it for us, these two are up to him.
    if (select pg_has_role(n.nspowner, 'usage') from pg_namespace as n where n.nspname = 'pgmq') then
        comment on schema pgmq is 'Message queues (PGMQ), installed by watermill-pgmq';
        grant usage on schema pgmq to pg_monitor;
    end if;
end;
$$;

-- What was installed here, and when.
create table pgmq._ledger (
    version integer primary key,
    checksum text not null,
    applied_at timestamp with time zone not null default clock_timestamp()
);

comment on table pgmq._ledger is 'The versions of the watermill-pgmq schema that were applied to this database';

-- One row for every name a queue was created with.
create table pgmq.meta (
    queue_name character varying primary key,
    is_partitioned boolean not null,
    is_unlogged boolean not null,
    created_at timestamp with time zone not null default now()
);

-- How often a queue notifies. Unlogged: it is written while messages are sent, and after a crash a
-- queue without its row merely notifies more often.
create unlogged table pgmq.notify_insert_throttle (
    queue_name character varying primary key
        references pgmq.meta (queue_name) on delete cascade,
    throttle_interval_ms integer not null default 0,
    last_notified_at timestamp with time zone not null default to_timestamp(0)
);

create type pgmq.message_record as (
    msg_id bigint,
    read_ct integer,
    enqueued_at timestamp with time zone,
    last_read_at timestamp with time zone,
    vt timestamp with time zone,
    message jsonb,
    headers jsonb
);

create type pgmq.queue_record as (
    queue_name character varying,
    is_partitioned boolean,
    is_unlogged boolean,
    created_at timestamp with time zone
);

create type pgmq.metrics_result as (
    queue_name text,
    queue_length bigint,
    newest_msg_age_sec integer,
    oldest_msg_age_sec integer,
    total_messages bigint,
    scrape_time timestamp with time zone,
    queue_visible_length bigint,
    default_partition_length bigint
);

-- Who watches a database sees how much waits in its queues, and no payload. pgmq._create_tables
-- grants the same for every queue.
grant select on pgmq.meta, pgmq.notify_insert_throttle to pg_monitor;

-- Whoever may use the schema may know its version.
grant select on pgmq._ledger to public;
