package queue

// refusal is Redis's answer to one job of a script that was called for several. As an error among the script's replies it would
// cost the connection: go-redis stops reading at some of them.
type refusal string

func (r refusal) Error() string { return string(r) }

// RedisError makes it one of Redis's own answers.
func (refusal) RedisError() {}

// refusalOf reads what a script says of a job that Redis refuses: its only value is why.
func refusalOf(reply any) (refusal, bool) {
	values, _ := reply.([]any)
	if len(values) != 1 {
		return "", false
	}
	why, ok := values[0].(string)
	return refusal(why), ok
}
