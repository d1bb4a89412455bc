package pgmq

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"
)

// Message is one message as a queue holds it: a row of pgmq.message_record.
type Message struct {
	// ID is unique within the queue and grows in the order of sending.
	ID int64
	// ReadCount says how often the message has been read, this time included.
	ReadCount int
	// EnqueuedAt is when the sending transaction began.
	EnqueuedAt time.Time
	// LastReadAt is when the message was read last. Zero: never, or a PGMQ before 1.10.
	LastReadAt time.Time
	// VisibleAt is the visibility timeout: nobody else reads the message before it.
	VisibleAt time.Time
	// Body is the JSON value that was sent, as Postgres prints a jsonb. Nil is SQL NULL.
	Body json.RawMessage
	// Headers is a JSON object. Nil is SQL NULL: sent without headers.
	Headers json.RawMessage
}

// Outgoing is one message to send.
type Outgoing struct {
	// Body is any JSON value. Nil is sent as SQL NULL.
	Body json.RawMessage
	// Headers is a JSON object, or nil for none. PGMQ itself reads one of them, GroupHeader.
	Headers json.RawMessage
}

// scanMessage reads a row whose columns are those of pgmq.message_record since PGMQ 1.10, in its order.
func scanMessage(r row) (Message, error) {
	var (
		m        Message
		lastRead *time.Time
	)
	err := r.Scan(&m.ID, &m.ReadCount, &m.EnqueuedAt, &lastRead, &m.VisibleAt, (*[]byte)(&m.Body), (*[]byte)(&m.Headers))
	if lastRead != nil {
		m.LastReadAt = *lastRead
	}
	return m, err
}

// messages returns a scan of pgmq.message_record in whatever version.
func messages() func(row) (Message, error) {
	var (
		m        Message
		lastRead *time.Time
	)
	scan := byName(func(column string) any {
		switch column {
		case "msg_id":
			return &m.ID
		case "read_ct":
			return &m.ReadCount
		case "enqueued_at":
			return &m.EnqueuedAt
		case "last_read_at":
			return &lastRead
		case "vt":
			return &m.VisibleAt
		case "message":
			return (*[]byte)(&m.Body)
		case "headers":
			return (*[]byte)(&m.Headers)
		}
		return nil
	})
	return func(r row) (Message, error) {
		err := scan(r) // into m, whose columns are the same in each row
		m.LastReadAt = time.Time{}
		if lastRead != nil {
			m.LastReadAt = *lastRead
		}
		return m, err
	}
}

// byName returns a scan for rows of a type to which versions of PGMQ have added columns. It finds them by
// their names: target says where a column goes to. One that it does not know is left out, and where a
// column is missing nothing is written.
func byName(target func(column string) any) func(row) error {
	var targets []any
	return func(r row) error {
		if targets == nil {
			columns, err := r.Columns()
			if err != nil {
				return err
			}
			for _, column := range columns {
				to := target(column)
				if to == nil {
					to = new(any)
				}
				targets = append(targets, to)
			}
		}
		return r.Scan(targets...)
	}
}

// sortByID puts messages in the order of sending; PGMQ's reads pick the oldest ones, but return them
// in any order.
func sortByID(msgs []Message) {
	slices.SortFunc(msgs, func(a, b Message) int { return cmp.Compare(a.ID, b.ID) })
}
