package queue

// Keys that asynq defines, in the layout that it has had since v0.22. All keys of a queue share its hash tag.
const allQueues = "asynq:queues"

func asynqKey(queue, name string) string { return "asynq:{" + queue + "}:" + name }

func taskPrefix(queue string) string { return asynqKey(queue, "t:") }

// ownKey names a key of ours in the queue's slot.
func ownKey(queue, name string) string { return "scaleaware:queue:{" + queue + "}:" + name }
