package watermillpgmq_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func TestGroupKeys(t *testing.T) {
	t.Parallel()
	msg := newMessage(`{"id": 7, "paid": true, "customer": {"id": "c\u0031", "none": null}}`)
	msg.Metadata.Set("tenant", "acme")
	params := watermillpgmq.GroupKeyParams{Topic: "orders", Message: msg}
	for name, test := range map[string]struct {
		of   func(watermillpgmq.GroupKeyParams) (string, error)
		want string // empty: ErrNoGroupKey
	}{
		"metadata":         {watermillpgmq.GroupByMetadata("tenant"), "acme"},
		"missing metadata": {watermillpgmq.GroupByMetadata("nope"), ""},
		"topic":            {watermillpgmq.GroupByTopic(), "orders"},
		"string":           {watermillpgmq.GroupByJSONField("customer.id"), "c1"},
		"number":           {watermillpgmq.GroupByJSONField("id"), "7"},
		"boolean":          {watermillpgmq.GroupByJSONField("paid"), "true"},
		"null":             {watermillpgmq.GroupByJSONField("customer.none"), ""},
		"object":           {watermillpgmq.GroupByJSONField("customer"), ""},
		"missing field":    {watermillpgmq.GroupByJSONField("nope"), ""},
		"too deep":         {watermillpgmq.GroupByJSONField("id.x"), ""},
	} {
		key, err := test.of(params)
		if test.want == "" {
			require.ErrorIs(t, err, watermillpgmq.ErrNoGroupKey, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, test.want, key, name)
	}
	_, err := watermillpgmq.GroupByJSONField("id")(watermillpgmq.GroupKeyParams{Message: newMessage("not JSON")})
	require.ErrorIs(t, err, watermillpgmq.ErrNoGroupKey)
}

// The group is a header beside the metadata, whatever the marshaler made of that, and arrives.
func TestGroupKey_Arrives(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{Ordering: watermillpgmq.PerGroup}), "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{GroupKey: watermillpgmq.GroupByMetadata("group")})
	for _, group := range []string{`plain`, `"quotes" \ and ünïcode`, strings.Repeat("ü", 200), ``} {
		msg := newMessage("x")
		msg.Metadata.Set("group", group)
		require.NoError(t, publisher.Publish("orders", msg))
		got := receive(t, messages)
		require.Equal(t, group, got.Metadata.Get("group"))
		info, ok := watermillpgmq.MessageFromContext(got.Context())
		require.True(t, ok)
		require.Equal(t, group, info.Group)
		got.Ack()
	}
}

func TestGroupKey_RefusesWhatCannotBeOne(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{GroupKey: watermillpgmq.GroupByMetadata("group")})
	for _, group := range []string{"\x00", "\xff", strings.Repeat("ü", 201)} {
		msg := newMessage("x")
		msg.Metadata.Set("group", group)
		var refused *watermillpgmq.GroupKeyError
		require.ErrorAs(t, publisher.Publish("orders", newMessage("x"), msg), &refused)
		require.ErrorAs(t, publisher.Publish("orders", msg), &refused)
		require.Equal(t, group, refused.Key)
	}
	require.ErrorIs(t, publisher.Publish("orders", newMessage("x")), watermillpgmq.ErrNoGroupKey)
	require.Zero(t, written(t, db))
}

// Ids are given before commit. Without SerializeGroups, a transaction that commits late puts its message
// before one that was committed, and may be handled, already. With it, the other publisher waits.
func TestSerializeGroups(t *testing.T) {
	t.Parallel()
	for name, serialize := range map[string]bool{"order of ids": false, "order of commits": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgmqtest.New(t).Pool
			messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{Ordering: watermillpgmq.PerGroup}), "orders")
			publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{
				GroupKey:        watermillpgmq.GroupByTopic(),
				SerializeGroups: serialize,
			})
			tx := begin(t, db)
			require.NoError(t, publisher.Publish("orders", inTx(t.Context(), tx, "begun first")))
			published := make(chan error, 1)
			go func() { published <- publisher.Publish("orders", newMessage("begun second")) }()
			if serialize {
				awaitLockWaiters(t, db, 1)
				select {
				case err := <-published:
					t.Fatalf("did not wait for the transaction: %v", err)
				default:
				}
				require.NoError(t, tx.Commit(t.Context()))
				require.NoError(t, <-published)
				require.Equal(t, []string{"begun first", "begun second"}, payloads(receiveAll(t, messages, 2)))
				return
			}
			require.NoError(t, <-published)
			require.Equal(t, "begun second", string(receiveAll(t, messages, 1)[0].Payload))
			require.NoError(t, tx.Commit(t.Context()))
			require.Equal(t, "begun first", string(receiveAll(t, messages, 1)[0].Payload))
		})
	}
}

// Groups that nobody waits for go on, and rolling back lets the next one in.
func TestSerializeGroups_OthersDoNotWait(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{
		GroupKey:        func(params watermillpgmq.GroupKeyParams) (string, error) { return string(params.Message.Payload), nil },
		SerializeGroups: true,
	})
	tx := begin(t, db)
	require.NoError(t, publisher.Publish("orders", inTx(t.Context(), tx, "a")))
	waiting := make(chan error, 1)
	go func() { waiting <- publisher.Publish("orders", newMessage("a")) }()
	awaitLockWaiters(t, db, 1)
	require.NoError(t, publisher.Publish("orders", newMessage("b"), newMessage("c")))
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, <-waiting)
	require.Equal(t, 3, written(t, db))
}

func TestSerializeGroups_NeedsGroups(t *testing.T) {
	t.Parallel()
	_, err := watermillpgmq.NewPublisher(pgmqtest.NewEmpty(t).Pool, watermillpgmq.PublisherConfig{SerializeGroups: true}, nil)
	var config *watermillpgmq.ConfigError
	require.ErrorAs(t, err, &config)
	require.Equal(t, "SerializeGroups", config.Field)
}

// The group is the header of exactly this name, as the server has it.
func TestMessageInfo_Group(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{}), "orders")
	for headers, want := range map[string]string{
		`{"X-Pgmq-Group": "no"}`: "", `{"x-pgmq-group": 7}`: "7", `{"x-pgmq-group": null}`: "", `{"x-pgmq-group": "a\u00e4"}`: "aä", `{}`: "",
	} {
		_, err := pgmq.New(db).SendTopic(t.Context(), "orders", pgmq.Outgoing{Body: []byte(`1`), Headers: []byte(headers)})
		require.NoError(t, err)
		info, ok := watermillpgmq.MessageFromContext(receiveAll(t, messages, 1)[0].Context())
		require.True(t, ok)
		require.Equal(t, want, info.Group, headers)
	}
}
