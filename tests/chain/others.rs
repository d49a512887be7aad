//! Others write to the same primary.

use crate::rig::Rig;

#[tokio::test]
async fn the_newer_write_wins_and_the_loser_is_counted() {
    let rig = Rig::new().await;
    rig.set("k", 1).await;
    rig.fall().await;
    rig.set("k", 2).await;
    rig.recover().await;
    assert_eq!(rig.stored("k").await, Some(2));
}

#[tokio::test]
async fn items_of_several_writers_are_all_there_once_and_in_their_order() {
    let rig = Rig::new().await;
    for number in 0..10 {
        if number == 3 {
            rig.fall().await;
        }
        rig.database.append_json("list", &number).await.unwrap();
        rig.primary.append_json("list", &(100 + number)).await.unwrap();
    }
    rig.recover().await;
    let items = rig.items("list").await;
    let of = |theirs: bool| items.iter().copied().filter(move |item| (*item >= 100) == theirs).collect::<Vec<_>>();
    assert_eq!(of(false), (0..10).collect::<Vec<_>>());
    assert_eq!(of(true), (100..110).collect::<Vec<_>>());
}
