package pgmq

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrNilDB says that the client was made without a handle.
	ErrNilDB = errors.New("the database handle is nil")
	// ErrNotInstalled says that the database has no PGMQ.
	ErrNotInstalled = errors.New("PGMQ is not installed in this database: install it with pgmq.Install (Client.Install)")
	// ErrQueueNotFound says that there is no such queue.
	ErrQueueNotFound = errors.New("queue not found")
	// ErrQueueNameCollision says that another queue has the same name in other letters' case: PGMQ
	// would keep both in one table.
	ErrQueueNameCollision = errors.New("queue name differs from an existing queue's by case only")
	// ErrUnsupported says that the server's PGMQ, or the handle, does not have what was asked for.
	ErrUnsupported = errors.New("not supported")
	// ErrPermissionDenied says that the role lacks a right; see RightsError.
	ErrPermissionDenied = errors.New("permission denied")
)

// Error is what a method of this package failed with.
type Error struct {
	// Op is the operation, in the words of PGMQ's function: "send", "read", "create".
	Op string
	// Queue is the queue, or for topics the routing key or pattern. Empty where there is none.
	Queue string
	// Err is the cause. errors.Is finds this package's sentinels in it and the error of a context that
	// has ended, errors.As the *pgconn.PgError of the server, or what the driver has instead.
	Err error
}

func (e *Error) Error() string {
	if e.Queue == "" {
		return fmt.Sprintf("pgmq: %s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("pgmq: %s %q: %v", e.Op, e.Queue, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ValueError says which argument was refused, before anything was sent, and the rule it breaks.
type ValueError struct {
	// Name is the argument or the field.
	Name string
	// Value is what was given.
	Value any
	// Rule is what it has to be.
	Rule string
}

func (e *ValueError) Error() string {
	return fmt.Sprintf("%s is %v: it must be %s", e.Name, e.Value, e.Rule)
}

// RightsError names the rights that the role lacks.
type RightsError struct {
	// Role is the current role.
	Role string
	// Missing holds the missing rights as one would grant them: "INSERT on table pgmq.q_orders".
	Missing []string
	// Err is the server's error.
	Err error
}

func (e *RightsError) Error() string {
	return fmt.Sprintf("role %q lacks %s: %v", e.Role, strings.Join(e.Missing, ", "), e.Err)
}

// Unwrap lets errors.Is find ErrPermissionDenied and the server's error.
func (e *RightsError) Unwrap() []error { return []error{ErrPermissionDenied, e.Err} }

// SQLSTATEs that mean something of their own here.
const (
	stateUndefinedTable        = "42P01"
	stateUndefinedFunction     = "42883"
	stateInvalidSchemaName     = "3F000"
	stateInsufficientPrivilege = "42501"
	stateDatatypeMismatch      = "42804"
	stateRaised                = "P0001"
	stateQueryCanceled         = "57014"
)

// operation is what a method is doing, for its errors.
type operation struct {
	name  string
	queue string
}

// fail returns err as this operation's error; nil stays nil.
func (op operation) fail(err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op.name, Queue: op.queue, Err: err}
}

// wrap is fail for what came from the server: it says by the SQLSTATE what the error means.
func (c *Client) wrap(ctx context.Context, op operation, err error) error {
	switch stateOf(err) {
	case "", stateQueryCanceled:
		// Not every driver says why it has given up.
		if ended := ctx.Err(); err != nil && ended != nil && !errors.Is(err, ended) {
			err = fmt.Errorf("%w: %w", ended, err)
		}
	case stateUndefinedTable:
		err = fmt.Errorf("%w: %w", c.missingTable(ctx, op), err)
	case stateInvalidSchemaName:
		err = fmt.Errorf("%w: %w", ErrNotInstalled, err)
	case stateUndefinedFunction:
		err = unsupported(err)
	case stateDatatypeMismatch:
		// Arguments are cast to what the functions take, so it is their result that does not fit: they
		// return the columns of a table as they are, and of one that was altered by the upgrade these have
		// another order than those of pgmq.message_record. The catalog shows it for each table only.
		err = fmt.Errorf("%w: %w", ErrBrokenPGMQ, err)
	case stateInsufficientPrivilege:
		err = c.explainRights(ctx, op, err)
	}
	return op.fail(err)
}

// missingTable says what it means that a table is missing: a queue, unless PGMQ itself is.
func (c *Client) missingTable(ctx context.Context, op operation) error {
	if op.name == "create" || op.name == "list_queues" {
		return ErrNotInstalled // there is no queue yet, so it is one of PGMQ's own
	}
	if c.db.isTx() {
		return ErrQueueNotFound // a transaction that has failed answers nothing
	}
	installed, err := queryOne(ctx, c, op, scanValue[bool], `
		select exists (select from pg_catalog.pg_namespace as n where n.nspname = 'pgmq')`)
	if err == nil && !installed {
		return ErrNotInstalled
	}
	return ErrQueueNotFound
}

// stateOf is the SQLSTATE of an error that came from the server, whichever driver brought it; else empty.
func stateOf(err error) string {
	var server interface{ SQLState() string }
	if errors.As(err, &server) {
		return server.SQLState()
	}
	return ""
}
