package rediscluster

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const slotCount = 16384

// member is one line of CLUSTER NODES: what one node thinks of another, or of itself.
type member struct {
	id     string
	flags  []string
	master string // the id of its master; empty for a master
	epoch  int64
	linked bool
	slots  []slotRange
}

type slotRange struct{ from, to int }

func (m *member) is(flag string) bool { return slices.Contains(m.flags, flag) }

func (m *member) owns(slot int) bool {
	return slices.ContainsFunc(m.slots, func(r slotRange) bool { return r.from <= slot && slot <= r.to })
}

func (m *member) serves() int {
	n := 0
	for _, r := range m.slots {
		n += r.to - r.from + 1
	}
	return n
}

// view is what one node says of the cluster.
type view struct {
	self    *member
	members map[string]*member // by id
}

func parseView(text string) (*view, error) {
	v := &view{members: make(map[string]*member)}
	for line := range strings.Lines(text) {
		// id ip:port@bus flags master ping pong epoch link slots…
		fields := strings.Fields(line)
		if len(fields) < 8 {
			return nil, fmt.Errorf("rediscluster: a line of CLUSTER NODES has %d fields: %q", len(fields), line)
		}
		epoch, err := strconv.ParseInt(fields[6], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("rediscluster: config epoch in %q: %w", line, err)
		}
		m := &member{id: fields[0], flags: strings.Split(fields[2], ","), epoch: epoch, linked: fields[7] == "connected"}
		if fields[3] != "-" {
			m.master = fields[3]
		}
		for _, field := range fields[8:] {
			if strings.HasPrefix(field, "[") {
				continue // a slot that is being migrated
			}
			r, err := parseRange(field)
			if err != nil {
				return nil, err
			}
			m.slots = append(m.slots, r)
		}
		v.members[m.id] = m
		if m.is("myself") {
			v.self = m
		}
	}
	if v.self == nil {
		return nil, fmt.Errorf("rediscluster: CLUSTER NODES without myself: %q", text)
	}
	return v, nil
}

func parseRange(text string) (slotRange, error) {
	from, to, found := strings.Cut(text, "-")
	if !found {
		to = from
	}
	a, err := strconv.Atoi(from)
	if err != nil {
		return slotRange{}, fmt.Errorf("rediscluster: slot range %q: %w", text, err)
	}
	b, err := strconv.Atoi(to)
	if err != nil {
		return slotRange{}, fmt.Errorf("rediscluster: slot range %q: %w", text, err)
	}
	return slotRange{a, b}, nil
}

// disagreement says why the views do not yet describe one healthy cluster, or "". Each view is of a node that runs; nodes that
// do not are of no interest, as long as nobody counts on them.
func disagreement(views []*view) string {
	selves := make(map[string]*member, len(views))
	served := 0
	for _, v := range views {
		selves[v.self.id] = v.self
		served += v.self.serves()
	}
	if served != slotCount {
		return fmt.Sprintf("%d slots are served, want %d", served, slotCount)
	}
	for _, v := range views {
		if v.self.master != "" && selves[v.self.master] == nil {
			return fmt.Sprintf("node %s replicates a node that does not run", v.self.id)
		}
		for id, self := range selves {
			seen := v.members[id]
			switch {
			case seen == nil:
				return fmt.Sprintf("node %s does not know %s", v.self.id, id)
			case seen.is("fail") || seen.is("fail?") || seen.is("handshake") || seen.is("noaddr") || !seen.linked:
				return fmt.Sprintf("node %s sees %s as %s", v.self.id, id, strings.Join(seen.flags, ","))
			case seen.master != self.master || seen.epoch < self.epoch && self.master == "":
				return fmt.Sprintf("node %s has an old role of %s", v.self.id, id)
			case !slices.Equal(seen.slots, self.slots):
				return fmt.Sprintf("node %s has old slots of %s", v.self.id, id)
			}
		}
	}
	return ""
}
