package watermillpgmq

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

func TestTopicTopology(t *testing.T) {
	t.Parallel()
	topology := TopicTopology{}
	to, err := topology.PublishTo("Orders.created")
	if want := (Destination{RoutingKey: "Orders.created"}); err != nil || to != want {
		t.Errorf("PublishTo = %+v, %v, want %+v", to, err, want)
	}
	tests := map[Source][2]string{
		{Queue: "orders.created", Pattern: "orders.created"}:         {"orders.created", ""},
		{Queue: "orders.created:billing", Pattern: "orders.created"}: {"orders.created", "billing"},
		{Queue: "orders.#:audit", Pattern: "orders.#"}:               {"orders.#", "audit"},
		{Queue: "orders~2fb22e52495ddae6", Pattern: "Orders"}:        {"Orders", ""},
	}
	for want, call := range tests {
		if got, err := topology.SubscribeTo(call[0], call[1]); err != nil || got != want {
			t.Errorf("SubscribeTo%q = %+v, %v, want %+v", call, got, err, want)
		}
	}
}

func TestTopicTopologyGenerates(t *testing.T) {
	t.Parallel()
	topology := TopicTopology{
		GenerateRoutingKey: func(p RoutingKeyParams) (string, error) { return "shop." + p.Topic, nil },
	}
	to, err := topology.PublishTo("orders")
	if want := (Destination{RoutingKey: "shop.orders"}); err != nil || to != want {
		t.Errorf("PublishTo = %+v, %v, want %+v", to, err, want)
	}
	// The queue is named after the pattern: another application's "orders" is another queue.
	from, err := topology.SubscribeTo("orders", "g")
	if want := (Source{Queue: "shop.orders:g", Pattern: "shop.orders"}); err != nil || from != want {
		t.Errorf("SubscribeTo = %+v, %v, want %+v", from, err, want)
	}
	topology.GenerateQueueName = func(p QueueNameParams) (string, error) {
		return strings.Join([]string{p.Topic, p.Pattern, p.ConsumerGroup}, "|"), nil
	}
	from, err = topology.SubscribeTo("orders", "g")
	if want := (Source{Queue: "orders|shop.orders|g", Pattern: "shop.orders"}); err != nil || from != want {
		t.Errorf("SubscribeTo = %+v, %v, want %+v", from, err, want)
	}
}

func TestQueueTopology(t *testing.T) {
	t.Parallel()
	topology := QueueTopology{}
	for range 2 {
		to, err := topology.PublishTo("Work")
		if want := (Destination{Queue: "Work"}); err != nil || to != want {
			t.Errorf("PublishTo = %+v, %v, want %+v", to, err, want)
		}
		from, err := topology.SubscribeTo("Work", "")
		if want := (Source{Queue: "Work"}); err != nil || from != want {
			t.Errorf("SubscribeTo = %+v, %v, want %+v", from, err, want)
		}
		// The same again, with a name that comes from a topic that is not one.
		topology.GenerateQueueName = func(p QueueNameParams) (string, error) {
			return strings.Trim(p.Topic, "$"), nil
		}
	}
	if to, err := topology.PublishTo("$Work$"); err != nil || to.Queue != "Work" {
		t.Errorf("PublishTo = %+v, %v, want Work", to, err)
	}
}

var errNoName = errors.New("no name for it")

func TestTopologiesRefuse(t *testing.T) {
	t.Parallel()
	topics, queues := TopicTopology{}, QueueTopology{}
	prefixed := TopicTopology{
		GenerateRoutingKey: func(p RoutingKeyParams) (string, error) { return "a.." + p.Topic, nil },
	}
	upper := TopicTopology{
		GenerateQueueName: func(p QueueNameParams) (string, error) { return strings.ToUpper(p.Topic), nil },
	}
	failing := TopicTopology{
		GenerateRoutingKey: func(RoutingKeyParams) (string, error) { return "", errNoName },
	}
	failingQueues := QueueTopology{
		GenerateQueueName: func(QueueNameParams) (string, error) { return "", errNoName },
	}
	const emptySegment = "has an empty segment: a dot at its start, at its end or after another dot"
	const noName = "has no name in PGMQ: no name for it"
	tests := []struct {
		topology    Topology
		topic, rule string
		cause       error
		publishes   bool // only subscribing fails
		subscribes  bool // only publishing fails
	}{
		{topology: topics, topic: "", rule: "is empty", cause: pgmq.ErrInvalidTopic},
		{topology: topics, topic: "a..b", rule: emptySegment, cause: pgmq.ErrInvalidTopic},
		{topology: topics, topic: "a b", rule: "contains ' '; allowed are A-Z a-z 0-9 . _ -", cause: pgmq.ErrInvalidTopic},
		{topology: topics, topic: strings.Repeat("x", 256), rule: "is 256 bytes long; at most 255 are allowed", cause: pgmq.ErrInvalidTopic},
		{topology: topics, topic: "a.*", rule: "contains a wildcard (* or #), which only a pattern may", cause: pgmq.ErrInvalidTopic, subscribes: true},
		{topology: topics, topic: "a.#", rule: "contains a wildcard (* or #), which only a pattern may", cause: pgmq.ErrInvalidTopic, subscribes: true},
		{topology: prefixed, topic: "", rule: "is empty", cause: pgmq.ErrInvalidTopic},
		{topology: failing, topic: "a", rule: noName, cause: errNoName},
		{
			topology: upper, topic: "a", rule: `becomes the queue name "A", which has upper case, which queues are not told apart by`,
			cause: pgmq.ErrInvalidQueueName, publishes: true,
		},
		{topology: queues, topic: "", rule: "is empty", cause: pgmq.ErrInvalidQueueName},
		{topology: queues, topic: "a;b", rule: "contains one of $ ; ' NUL", cause: pgmq.ErrInvalidQueueName},
		{topology: queues, topic: strings.Repeat("x", 48), rule: "is 48 bytes long; at most 47 are allowed", cause: pgmq.ErrInvalidQueueName},
		{topology: failingQueues, topic: "", rule: "is empty", cause: pgmq.ErrInvalidQueueName},
		{topology: failingQueues, topic: "a", rule: noName, cause: errNoName},
	}
	for _, test := range tests {
		to, err := test.topology.PublishTo(test.topic)
		if test.publishes {
			requireNoError(t, err)
		} else {
			requireTopicError(t, err, test.topic, test.rule, test.cause)
			requireZero(t, to)
		}
		from, err := test.topology.SubscribeTo(test.topic, "")
		if test.subscribes {
			requireNoError(t, err)
		} else {
			requireTopicError(t, err, test.topic, test.rule, test.cause)
			requireZero(t, from)
		}
	}
	_, err := prefixed.PublishTo("b")
	requireTopicError(t, err, "b", `becomes the routing key "a..b", which `+emptySegment, pgmq.ErrInvalidTopic)
	_, err = prefixed.SubscribeTo("b", "")
	requireTopicError(t, err, "b", `becomes the topic pattern "a..b", which `+emptySegment, pgmq.ErrInvalidTopic)
}

func TestQueueTopologyRefusesConsumerGroups(t *testing.T) {
	t.Parallel()
	from, err := QueueTopology{}.SubscribeTo("work", "billing")
	requireZero(t, from)
	var group *ConsumerGroupError
	if !errors.As(err, &group) || group.Topic != "work" || group.ConsumerGroup != "billing" || !errors.Is(err, ErrConsumerGroup) {
		t.Errorf("got %v, want a *ConsumerGroupError", err)
	}
}

func requireNoError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func requireZero[T comparable](t *testing.T, value T) {
	t.Helper()
	if zero := *new(T); value != zero {
		t.Errorf("got %+v beside an error", value)
	}
}

func requireTopicError(t *testing.T, err error, topic, rule string, cause error) {
	t.Helper()
	var got *TopicError
	if !errors.As(err, &got) || got.Topic != topic || got.Rule != rule || !errors.Is(err, cause) || !errors.Is(err, ErrInvalidTopic) {
		t.Errorf("topic %.60q: got %v, want %q and %v", topic, err, rule, cause)
	}
}

// Names are forever: a queue that got another name would leave its messages behind.
func TestQueueNameGolden(t *testing.T) {
	t.Parallel()
	tests := []struct{ topic, group, want string }{
		{"orders.created", "", "orders.created"},
		{"orders.created", "billing", "orders.created:billing"},
		{"orders.*", "audit-log_2.0", "orders.*:audit-log_2.0"},
		{"#", "", "#"},
		{strings.Repeat("t", 47), "", strings.Repeat("t", 47)},
		{strings.Repeat("t", 45), "g", strings.Repeat("t", 45) + ":g"},
		{strings.Repeat("t", 48), "", strings.Repeat("t", 30) + "~67165f7a47e1cd52"},
		{strings.Repeat("t", 46), "g", strings.Repeat("t", 28) + ":g~47677ab9fcf36374"},
		{strings.Repeat("t", 40), strings.Repeat("g", 40), strings.Repeat("t", 15) + ":" + strings.Repeat("g", 14) + "~9be7a7f7c7193e99"},
		{"orders.created", "billing-department-of-the-european-branch", "orders.created:billing-departm~12c1fa81a234c9a6"},
		{"orders.created.by.the.european.web.shop.of.mine", "billing-department", "orders.created.:billing-depart~46db26afecfc0004"},
		{"orders.created.by.the.european.web.shop", "billing", "orders.created.by.the.european.web.shop:billing"},
		{"Orders", "", "orders~2fb22e52495ddae6"},
		{"orders.created", "Billing", "orders.created:billing~02651a592efcd9e4"},
		{"orders", "Billing", "orders:billing~af9d7359eab98ea0"},
		{"orders", "the billing / invoices", "orders:the-billing-invoices~a76beba9ab53310b"},
		{"a--b", "", "a-b~803ee1aaee3a5d67"},
		{"a", "b--c", "a:b-c~f125c2f6343f3b8e"},
		{"a", "b~0123456789abcdef", "a:b-0123456789abcdef~c584ae5e742c5076"},
		{"a", "b:c", "a:b-c~f458898b5e7b5d3b"},
		{"orders", "größe €", "orders:gr-e-~030d9a6dc164c4f6"},
		{"orders", "\xff\x00", "orders:-~088c32f8da1ea6a8"},
		{"", "", "~6e340b9cffb37a98"},
		{"", "g", ":g~5aeb196e83598231"},
	}
	for _, test := range tests {
		if got := QueueName(test.topic, test.group); got != test.want {
			t.Errorf("QueueName(%q, %q) = %q, want %q", test.topic, test.group, got, test.want)
		}
	}
}

func TestQueueNameProperty(t *testing.T) {
	t.Parallel()
	// Few characters and short texts make collisions likely, had the names any.
	near := rapid.StringMatching(`[aAb:~.-]{0,4}`)
	names := rapid.OneOf(near, rapid.StringMatching(`[a-zA-Z0-9._*#-]{1,60}`))
	groups := rapid.OneOf(near, rapid.String(), rapid.StringMatching(`[a-z-]{1,60}`))
	rapid.Check(t, func(t *rapid.T) {
		pairs := map[string][2]string{}
		for range 50 {
			pair := [2]string{names.Draw(t, "topic"), groups.Draw(t, "group")}
			name := QueueName(pair[0], pair[1])
			if err := pgmq.ValidateQueueName(name); err != nil {
				t.Fatalf("QueueName%q: %v", pair, err)
			}
			if name != strings.ToLower(name) {
				t.Fatalf("QueueName%q = %q, which is not lower case", pair, name)
			}
			if other, ok := pairs[name]; ok && other != pair {
				t.Fatalf("%q and %q are both %q", pair, other, name)
			}
			pairs[name] = pair
			// The name of one queue as the topic of another is not the same queue, unless it is the same topic.
			if again := QueueName(name, ""); again == name && pair != [2]string{name, ""} {
				t.Fatalf("%q and topic %q are both %q", pair, name, name)
			}
		}
	})
}

func BenchmarkQueueName(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if QueueName("Orders.created", "billing") == "" {
			b.Fatal("no name")
		}
	}
}
