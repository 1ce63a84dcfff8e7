//! demo
/// x
pub async fn run(_json: bool) -> Result<(), crate::api::error::ApiError> {
    Ok(())
}
