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

// GroupHeader is the header whose value names the FIFO group of a message (pgmq.read_grouped).
const GroupHeader = "x-pgmq-group"

// scanMessage reads a row whose columns are those of pgmq.message_record.
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

// sortByID puts messages in the order of sending; PGMQ's reads pick the oldest ones, but return them
// in any order.
func sortByID(msgs []Message) {
	slices.SortFunc(msgs, func(a, b Message) int { return cmp.Compare(a.ID, b.ID) })
}
