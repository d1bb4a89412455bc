package main

// The names of what is measured, as the targets refer to them.
const (
	publish1    = "publish, 1 goroutine"
	publish64   = "publish, 64 goroutines"
	publish256  = "publish, 256 goroutines"
	subscribe   = "subscribe, one handler"
	sqlPublish  = "watermill-sql publish, 64 goroutines"
	sqlDefault1 = "watermill-sql subscribe, default schema, batch 1"
	sqlDefault  = "watermill-sql subscribe, default schema, batch 100"
	sqlQueue    = "watermill-sql subscribe, queue schema, batch 100"
	rawTopic    = "raw send_topic, 1 connection"
	rawBatch64  = "raw send_batch_topic, 64 each, 1 connection"
	rawBatch100 = "raw send_batch_topic, 100 each, 4 connections"
	rawRead500  = "raw read + delete, 500 each, 1 connection"
)

// targets are ratios between two rates of one run.
var targets = []struct {
	ours, other string
	ratio       float64
}{
	{publish64, sqlPublish, 3},
	{publish64, rawBatch64, 0.9},
	{publish256, rawBatch100, 0.8},
	{publish1, rawTopic, 0.9},
	{subscribe, sqlDefault, 8},
	{subscribe, sqlQueue, 1.2},
	{subscribe, rawRead500, 0.95},
}

func measurements() []*measurement {
	return []*measurement{
		{name: publish1, measure: publishOurs(1), share: 0.2},
		{name: rawTopic, measure: sendRaw(1, 1), share: 0.2},
		{name: publish64, measure: publishOurs(64)},
		{name: rawBatch64, measure: sendRaw(64, 1)},
		{name: sqlPublish, measure: publishSQL(64)},
		{name: publish256, measure: publishOurs(256)},
		{name: rawBatch100, measure: sendRaw(100, 4)},
		{name: subscribe, measure: subscribeOurs},
		{name: rawRead500, measure: readRaw(500)},
		{name: sqlDefault1, measure: subscribeSQL(false, 1), share: 0.01},
		{name: sqlDefault, measure: subscribeSQL(false, 100), share: 0.3},
		{name: sqlQueue, measure: subscribeSQL(true, 100)},
	}
}
