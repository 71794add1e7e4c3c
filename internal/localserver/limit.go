package localserver

import (
	"fmt"
	"os/exec"
	"strconv"
	"syscall"
)

// LimitFiles keeps the server and all its descendants, also those that it forks later, from making any file longer than a number of
// bytes, as a full disk does: who tries gets EFBIG, where a disk says ENOSPC. Zero lifts the limit. It needs prlimit of util-linux.
func (p *Process) LimitFiles(bytes int64) error {
	limit := "unlimited"
	if bytes > 0 {
		limit = strconv.FormatInt(bytes, 10)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	leader, family := p.Pid(), p.descendants()
	for _, pid := range append([]int{leader}, family...) { // the leader first: what it forks from now on has the limit
		select {
		case <-p.done:
			if pid == leader {
				return fmt.Errorf("localserver: limit the files of %s: it has ended", p.cfg.Name)
			}
			return nil // of the limit, maybe
		default:
		}
		cmd := exec.Command("prlimit", "--pid", strconv.Itoa(pid), "--fsize="+limit+":unlimited")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.home.user} // whose processes they are
		text, err := cmd.CombinedOutput()
		if err != nil && pid == leader { // another may just have ended
			return fmt.Errorf("localserver: limit the files of %s: %w: %s", p.cfg.Name, err, text)
		}
	}
	return nil
}
