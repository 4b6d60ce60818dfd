package etcdlock

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Break implements driver.Inspector. It deletes the keys of the holders and leaves those that
// wait. What was broken is recorded in the same transaction, under Prefix + "%audit/", for 90
// days.
func (e *Engine) Break(ctx context.Context, req driver.BreakRequest) (driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Info{}, err
	}
	defer e.leave()
	for range 20 {
		entries, err := e.read(ctx, req.Name)
		if err != nil {
			return driver.Info{}, e.refusal(ctx, err)
		}
		info := e.describe(ctx, req.Name, entries, map[clientv3.LeaseID]time.Time{})
		holding, _ := split(entries)
		switch {
		case len(holding) == 0:
			return info, driver.Fail(driver.NotHeld, nil)
		case req.Fence != 0 && !slices.ContainsFunc(holding, func(h entry) bool { return h.has(req.Fence) }):
			return info, driver.Failf(driver.Stale, "nobody holds fence %d: the highest is %d", req.Fence, info.Fence)
		}
		done, err := e.breakAll(ctx, req, holding)
		if err != nil {
			return driver.Info{}, e.refusal(ctx, err)
		}
		if done {
			return info, nil
		}
	}
	return driver.Info{}, driver.Failf(driver.Unavailable, "the holders of the name change all the time: try again")
}

// has reports whether a fence is one of those that were granted to a holder.
func (e *entry) has(fence int64) bool {
	first, last := e.fences()
	return first <= fence && fence <= last
}

// auditTTL is how long the record of a break is kept, in seconds.
const auditTTL = 90 * 24 * 60 * 60

// breakAll deletes the holders' keys if they are still as they were read. Of more than fit
// into a transaction, the first go first, so that nobody is granted a share before all that
// conflict with it are gone.
func (e *Engine) breakAll(ctx context.Context, req driver.BreakRequest, holding []entry) (bool, error) {
	bounded, cancel := e.bound(ctx)
	defer cancel()
	kept, err := e.client.Grant(bounded, auditTTL)
	if err != nil {
		return false, err
	}
	most := e.cfg.MaxTxnOps - 1
	some := holding[:min(len(holding), most)]
	cmps := make([]clientv3.Cmp, len(some))
	ops := make([]clientv3.Op, len(some), len(some)+1)
	for i, h := range some {
		cmps[i] = clientv3.Compare(clientv3.ModRevision(h.key), "=", h.mod)
		ops[i] = clientv3.OpDelete(h.key)
	}
	now := time.Now().UTC()
	key := e.cfg.Prefix + auditKeys + now.Format("20060102T150405.000000000") + "-" + strconv.FormatInt(int64(kept.ID), 16)
	ops = append(ops, clientv3.OpPut(key, record(req, some, now), clientv3.WithLease(kept.ID)))
	a, err := e.client.Txn(bounded).If(cmps...).Then(ops...).Commit()
	if err != nil || !a.Succeeded {
		_, _ = e.client.Revoke(bounded, kept.ID) // a lease without a key ends by itself, too
		return false, err
	}
	if len(some) < len(holding) {
		return e.breakAll(ctx, req, holding[most:])
	}
	return true, nil
}

// record is what is kept of a break, as JSON.
func record(req driver.BreakRequest, broken []entry, at time.Time) string {
	type holder struct {
		Owner string `json:"owner"`
		Mode  string `json:"mode"`
		Fence int64  `json:"fence"`
	}
	const most = 20 // names of a thousand holders of permits are not worth it
	var holders []holder
	for _, h := range broken[:min(len(broken), most)] {
		_, last := h.fences()
		holders = append(holders, holder{shorten(h.Owner), h.mode.String(), last})
	}
	text, _ := json.Marshal(map[string]any{
		"name": req.Name, "fence": req.Fence, "by": shorten(req.By), "reason": shorten(req.Reason),
		"at": at.Format(time.RFC3339), "holders": holders, "shares": fmt.Sprint(len(broken)),
	})
	return string(text)
}

func shorten(s string) string { return s[:min(len(s), 512)] }
