// Package placement decides which member of a group has which partition: evenly by weight,
// and with as few moves as that takes.
package placement

import (
	"cmp"
	"slices"
)

// Member is one that can have partitions.
type Member struct {
	ID string
	// Weight is the share of partitions beside the others', 1 or more.
	Weight int
	// Priority: only the members of the highest priority that is present have partitions.
	Priority int
}

// Plan gives each of n partitions to a member. now[p] is who has partition p, "" or a member
// that is gone for nobody. The answer is as long as n, all "" without members. It is the same
// for the same arguments, whatever the order of the members.
//
// Everybody gets the whole part of their share by weight; what is left over goes, one each,
// to those with the largest fractions, and among equal fractions to those who have more now.
// Nobody who has less than that gives anything away, so no plan with the same numbers needs
// fewer moves.
func Plan(n int, now []string, members []Member) []string {
	plan := make([]string, n)
	active := highest(members)
	if len(active) == 0 {
		return plan
	}
	has := map[string]int{}
	for p := range min(n, len(now)) {
		has[now[p]]++
	}
	quota := quotas(n, active, has)
	for p := range min(n, len(now)) {
		if quota[now[p]] > 0 {
			plan[p] = now[p]
			quota[now[p]]--
		}
	}
	next := 0
	for p := range plan {
		if plan[p] != "" {
			continue
		}
		// Around the members, so that neighbouring partitions land on different ones.
		for quota[active[next%len(active)].ID] == 0 {
			next++
		}
		id := active[next%len(active)].ID
		plan[p] = id
		quota[id]--
		next++
	}
	return plan
}

// highest returns the members of the highest priority, ordered by name.
func highest(members []Member) []Member {
	if len(members) == 0 {
		return nil
	}
	top := slices.MaxFunc(members, func(a, b Member) int { return cmp.Compare(a.Priority, b.Priority) }).Priority
	var active []Member
	for _, m := range members {
		if m.Priority == top {
			m.Weight = max(1, m.Weight)
			active = append(active, m)
		}
	}
	slices.SortFunc(active, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return slices.CompactFunc(active, func(a, b Member) bool { return a.ID == b.ID })
}

// quotas says how many partitions each is to have.
func quotas(n int, active []Member, has map[string]int) map[string]int {
	total := 0
	for _, m := range active {
		total += m.Weight
	}
	quota, left := map[string]int{}, n
	for _, m := range active {
		quota[m.ID] = n * m.Weight / total
		left -= quota[m.ID]
	}
	order := slices.Clone(active)
	slices.SortStableFunc(order, func(a, b Member) int {
		return cmp.Or(
			cmp.Compare(n*b.Weight%total, n*a.Weight%total),
			cmp.Compare(has[b.ID]-quota[b.ID], has[a.ID]-quota[a.ID]),
		)
	})
	for i := range left {
		quota[order[i].ID]++
	}
	return quota
}
