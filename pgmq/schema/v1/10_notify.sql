-- Notifications: a queue says on the channel pgmq.q_<name>.INSERT that something was sent to it.
--
-- They are thinned out, because Postgres hands them over under a lock of the whole server: at most one
-- every so many milliseconds, whatever is sent. Who listens for them polls, too.

-- One statement, one notification at most; the name in the channel is the name the queue was created
-- with, which is why the trigger says it.
--
-- No sender waits for another here. The row in which last_notified_at is kept belongs, from its update
-- on, to one transaction that may stay open for long. Another sender sees the value from before and
-- finds the row locked: it notifies, too, and leaves the row alone. Too many notifications while
-- transactions are long is the price, and a cheap one. With a throttle of 0 the row is never touched;
-- without the row (it is lost in a crash) there is no throttle. Above read committed the lock would
-- fail where the row has changed since the transaction began, and with it the send: it is not tried.
create function pgmq.notify_queue_listeners() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    queue constant text := tg_argv[0];
    moment constant timestamp with time zone := clock_timestamp();
    throttle record;
begin
    select t.throttle_interval_ms, t.last_notified_at
    into throttle
    from pgmq.notify_insert_throttle as t
    where t.queue_name = queue;

    if throttle.throttle_interval_ms > 0 then
        if moment < throttle.last_notified_at + throttle.throttle_interval_ms * interval '1 millisecond' then
            return null;
        end if;
        if current_setting('transaction_isolation') = 'read committed' then
            perform from pgmq.notify_insert_throttle as t
            where t.queue_name = queue
            for no key update skip locked;
            if found then
                update pgmq.notify_insert_throttle as t
                set last_notified_at = moment
                where t.queue_name = queue;
            end if;
        end if;
    end if;

    perform pg_notify('pgmq.q_' || queue || '.INSERT', '');
    return null;
end;
$$;

-- A trigger for every name a table's queue was created with.
create function pgmq._notify_trigger(queue_name text) returns text
language sql immutable
return 'notify_' || queue_name;

create function pgmq._has_notify_trigger(queue_name text) returns boolean
language sql stable
begin atomic
    select exists (
        select
        from pg_trigger as t
        where t.tgrelid = to_regclass(format('pgmq.%I', pgmq.format_table_name(queue_name, 'q')))
            and t.tgname = pgmq._notify_trigger(queue_name)::name
    );
end;

create function pgmq._require_queue(queue_name text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from pgmq.meta as m where m.queue_name = $1) then
        raise exception 'queue % does not exist', quote_nullable(queue_name)
            using hint = 'Create it first with pgmq.create(queue_name).';
    end if;
end;
$$;

create function pgmq._validate_throttle(throttle_interval_ms integer) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    if throttle_interval_ms is null or throttle_interval_ms < 0 then
        raise exception 'a throttle must be 0 or more milliseconds, this one is %', throttle_interval_ms;
    end if;
end;
$$;

-- Enabling again changes the throttle only: making a trigger locks senders out.
create function pgmq.enable_notify_insert(queue_name text, throttle_interval_ms integer default 250) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pgmq._validate_throttle(throttle_interval_ms);
    perform pgmq.acquire_queue_lock(queue_name);
    perform pgmq._require_queue(queue_name);

    if not exists (select from pgmq.notify_insert_throttle as t where t.queue_name = $1) then
        insert into pgmq.notify_insert_throttle as t (queue_name, throttle_interval_ms)
        values ($1, $2);
    else
        perform pgmq._set_throttle(queue_name, throttle_interval_ms);
    end if;

    if not pgmq._has_notify_trigger(queue_name) then
        execute format(
            $sql$
            create trigger %I
            after insert on pgmq.%I
            for each statement execute function pgmq.notify_queue_listeners(%L)
            $sql$,
            pgmq._notify_trigger(queue_name),
            pgmq.format_table_name(queue_name, 'q'),
            queue_name
        );
    end if;
end;
$$;

-- Leaves the row alone when there is nothing to change, because it may be locked by a sender.
create function pgmq._set_throttle(queue_name text, throttle_interval_ms integer) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    update pgmq.notify_insert_throttle as t
    set throttle_interval_ms = $2
    where t.queue_name = $1 and t.throttle_interval_ms <> $2;
end;
$$;

create function pgmq.update_notify_insert(queue_name text, throttle_interval_ms integer) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pgmq._validate_throttle(throttle_interval_ms);
    if not exists (select from pgmq.notify_insert_throttle as t where t.queue_name = $1) then
        raise exception 'notifications of queue % are not enabled', quote_nullable(queue_name)
            using hint = 'Enable them first with pgmq.enable_notify_insert(queue_name).';
    end if;
    perform pgmq._set_throttle(queue_name, throttle_interval_ms);
end;
$$;

create function pgmq.disable_notify_insert(queue_name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform pgmq.acquire_queue_lock(queue_name);
    if pgmq._has_notify_trigger(queue_name) then
        execute format(
            'drop trigger %I on pgmq.%I',
            pgmq._notify_trigger(queue_name),
            pgmq.format_table_name(queue_name, 'q')
        );
    end if;
    delete from pgmq.notify_insert_throttle as t where t.queue_name = $1;
end;
$$;

create function pgmq.list_notify_insert_throttles()
returns table (queue_name text, throttle_interval_ms integer, last_notified_at timestamp with time zone)
language sql stable
begin atomic
    select t.queue_name::text, t.throttle_interval_ms, t.last_notified_at
    from pgmq.notify_insert_throttle as t
    order by t.queue_name;
end;
