package localserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Signal sends a signal to the leading process alone. It is nothing when that
// has ended.
func (p *Process) Signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signal(s)
}

func (p *Process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// Freeze stops the server and all its descendants with SIGSTOP: connections
// stay open, nobody answers.
func (p *Process) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signal(syscall.SIGSTOP) // first, so that it forks no more
	for _, pid := range p.descendants() {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
}

// Thaw undoes [Process.Freeze].
func (p *Process) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pid := range p.descendants() {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	p.signal(syscall.SIGCONT)
}

// Kill ends the server and all its descendants with SIGKILL, frozen or not,
// and returns when none of them runs any more.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signal(syscall.SIGSTOP)
	family := p.descendants()
	p.signal(syscall.SIGKILL)
	for _, pid := range family {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-p.done
	deadline := time.Now().Add(5 * time.Second)
	for anyRuns(family) && time.Now().Before(deadline) {
		time.Sleep(2 * time.Millisecond)
	}
}

// descendants cannot be told by their process group: each PostgreSQL backend
// calls setsid.
func (p *Process) descendants() []int {
	select {
	case <-p.done:
		return nil // the pid may be another's by now
	default:
	}
	all := processes()
	family := []int{p.Pid()}
	for i := 0; i < len(family); i++ {
		for pid, it := range all {
			if it.parent == family[i] {
				family = append(family, pid)
			}
		}
	}
	return family[1:]
}

func anyRuns(pids []int) bool {
	all := processes()
	for _, pid := range pids {
		if it, ok := all[pid]; ok && it.state != 'Z' {
			return true
		}
	}
	return false
}

type running struct {
	parent int
	state  byte // 'Z': ended, but not reaped
}

// processes is the machine's process table, from /proc or else from ps.
func processes() map[int]running {
	table := map[int]running{}
	add := func(pid, parent, state string) {
		id, err := strconv.Atoi(pid)
		if err != nil {
			return
		}
		if up, err := strconv.Atoi(parent); err == nil {
			table[id] = running{up, state[0]}
		}
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		// "PID (name) STATE PPID …", where the name may hold blanks and brackets.
		line := string(text)
		if fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:]); len(fields) > 1 {
			add(filepath.Base(filepath.Dir(path)), fields[1], fields[0])
		}
	}
	if len(stats) == 0 {
		text, _ := exec.Command("ps", "-A", "-o", "pid=", "-o", "ppid=", "-o", "state=").Output()
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 2 {
				add(fields[0], fields[1], fields[2])
			}
		}
	}
	return table
}
