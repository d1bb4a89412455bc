package pgmq

import (
	"context"
	"errors"
	"fmt"
	"regexp"
)

// ErrBrokenPGMQ says that the server has PGMQ 1.10, upgraded from an earlier version: its read, pop and
// set_vt fail on every queue that was created before the upgrade. Sending works, and nothing is lost.
var ErrBrokenPGMQ = errors.New("PGMQ 1.10 cannot read a queue that is older than it: upgrade PGMQ to 1.11 or later")

// UnsupportedError says which function, or which form of it, the PGMQ of the database does not have. It
// matches ErrUnsupported.
type UnsupportedError struct {
	// Function is its name: "pgmq.read_grouped_head".
	Function string
	// Since is what has it: "PGMQ 1.11.1". Empty where that is not known.
	Since string
	// Err is the server's error.
	Err error
}

func (e *UnsupportedError) Error() string {
	if e.Since == "" {
		return fmt.Sprintf("it has no such %s: %v", e.Function, e.Err)
	}
	return fmt.Sprintf("%s needs %s: %v", e.Function, e.Since, e.Err)
}

// Unwrap lets errors.Is find ErrUnsupported and the server's error.
func (e *UnsupportedError) Unwrap() []error { return []error{ErrUnsupported, e.Err} }

// since says which version of PGMQ brought a function, in the form that the client calls.
var since = map[string]string{
	"enable_notify_insert":         "PGMQ 1.8",
	"disable_notify_insert":        "PGMQ 1.7",
	"pop":                          "PGMQ 1.7",
	"read_grouped":                 "PGMQ 1.9",
	"read_grouped_rr":              "PGMQ 1.9",
	"read_grouped_with_poll":       "PGMQ 1.9",
	"read_grouped_rr_with_poll":    "PGMQ 1.9",
	"create_fifo_index":            "PGMQ 1.9",
	"create_fifo_indexes_all":      "PGMQ 1.9",
	"send_topic":                   "PGMQ 1.11",
	"send_batch_topic":             "PGMQ 1.11",
	"bind_topic":                   "PGMQ 1.11",
	"unbind_topic":                 "PGMQ 1.11",
	"list_topic_bindings":          "PGMQ 1.11",
	"test_routing":                 "PGMQ 1.11",
	"update_notify_insert":         "PGMQ 1.11",
	"list_notify_insert_throttles": "PGMQ 1.11",
	"read_grouped_head":            "PGMQ 1.11.1",
	"read_grouped_head_with_poll":  "PGMQ 1.12",
	"create_partitioned":           "PGMQ 1.13", // with premake
	"_metrics_estimate":            "the schema of this project, which Client.Install installs",
}

// capabilities are those differences between versions of PGMQ that a method can make up for.
type capabilities struct {
	SetsInstants    bool // 1.10: set_vt to a timestamp
	ThrottlesNotify bool // 1.8: enable_notify_insert with a throttle
}

// capabilities asks the catalog, once for a client and those of its transactions: a version says nothing
// where PGMQ was installed by plain SQL. What can only be missing is not asked for: the error says so then,
// and nothing has happened.
func (c *Client) capabilities(ctx context.Context, op operation) (capabilities, error) {
	if known := c.server.Load(); known != nil {
		return *known, nil
	}
	has, err := queryOne(ctx, c, op, scanCapabilities, `
		select
			to_regprocedure('pgmq.set_vt(text, bigint[], timestamptz)') is not null,
			to_regprocedure('pgmq.enable_notify_insert(text, integer)') is not null`)
	if err == nil {
		c.server.Store(&has)
	}
	return has, err
}

func scanCapabilities(r row) (has capabilities, err error) {
	err = r.Scan(&has.SetsInstants, &has.ThrottlesNotify)
	return has, err
}

var functionName = regexp.MustCompile(`pgmq\.(\w+)`)

// unsupported says which function a server does not have. Whatever language it speaks, it names it.
func unsupported(err error) error {
	name := functionName.FindStringSubmatch(err.Error())
	if name == nil {
		return fmt.Errorf("%w by the PGMQ of this database: %w", ErrUnsupported, err)
	}
	return &UnsupportedError{Function: name[0], Since: since[name[1]], Err: err}
}
